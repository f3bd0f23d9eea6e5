// The memory work that exact metering cannot do without, in plain C++: what the kernels are measured against.
//
// For each event: a 128-bit fingerprint of a number; a blocked Bloom filter (32-byte blocks, one bit in each of eight
// words), asked and filled; an open-addressing table of fingerprints, asked and filled; and a record of sums, found by
// the hash of its key, to which three 128-bit products are added. Filter, table and sums are of the given size each, in
// large pages where the system gives them, and touched before the clock starts. Keys are uniform: every access misses
// the cache. Rows are taken in batches, and what is needed is prefetched AHEAD rows before. Left out is what depends on
// the form of the events: reading texts, finding prices, growing tables, sorting and writing rows.
//
// limit EVENTS TABLE_BYTES prints nanoseconds of CPU time an event, by stage, as JSON.

#include <sys/mman.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <ctime>

namespace {

constexpr int64_t BATCH = 65536;
constexpr int64_t AHEAD = 32;

struct Fingerprint {
    uint64_t low, high;
};

struct Sums {
    uint64_t key;
    uint64_t events;
    __int128 amounts[3];
};
static_assert(sizeof(Sums) == 64);

int64_t now_ns() {
    timespec time;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * 1'000'000'000LL + time.tv_nsec;
}

// A table of at most so many bytes: a power of two of elements, and the mask of their numbers.
template <typename Element>
struct Table {
    Element *at;
    uint64_t mask;

    explicit Table(uint64_t bytes) {
        uint64_t count = 1;
        while (2 * count * sizeof(Element) <= bytes) count *= 2;
        mask = count - 1;
        size_t size = count * sizeof(Element);
        void *room = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (room == MAP_FAILED) {
            std::perror("limit: mmap");
            std::exit(1);
        }
        madvise(room, size, MADV_HUGEPAGE);  // where it is refused, pages are small
        std::memset(room, 0, size);
        at = static_cast<Element *>(room);
    }
};

struct Block {
    uint32_t words[8];
};

uint64_t mixed(uint64_t x) {
    x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ x >> 27) * 0x94D049BB133111EBULL;
    return x ^ x >> 31;
}

void hash(int64_t first, Fingerprint *out) {
    for (int64_t i = 0; i < BATCH; i++) {
        uint64_t low = mixed(static_cast<uint64_t>(first + i) + 0x9E3779B97F4A7C15ULL);
        out[i] = {low, low * 0xD6E8FEB86659FD93ULL ^ low >> 32};
    }
}

// How many of the batch may have been there before.
int64_t filter(const Table<Block> &blocks, const Fingerprint *rows) {
    static constexpr uint32_t SALTS[8] = {0x47b6137bU, 0x44974d91U, 0x8824ad5bU, 0xa2b7289dU,
                                          0x705495c7U, 0x2df1424bU, 0x9efc4947U, 0x5c6bfb31U};
    int64_t seen = 0;
    for (int64_t i = 0; i < BATCH; i++) {
        if (i + AHEAD < BATCH) __builtin_prefetch(&blocks.at[rows[i + AHEAD].high & blocks.mask], 1);
        Block &block = blocks.at[rows[i].high & blocks.mask];
        uint32_t missing = 0, of = static_cast<uint32_t>(rows[i].low);
        for (int word = 0; word < 8; word++) {
            uint32_t bit = 1U << (of * SALTS[word] >> 27);
            missing |= bit & ~block.words[word];
            block.words[word] |= bit;
        }
        seen += missing == 0;
    }
    return seen;
}

// How many of the batch were not there before.
int64_t insert(const Table<Fingerprint> &table, const Fingerprint *rows) {
    int64_t fresh = 0;
    for (int64_t i = 0; i < BATCH; i++) {
        if (i + AHEAD < BATCH) __builtin_prefetch(&table.at[rows[i + AHEAD].low & table.mask], 1);
        uint64_t slot = rows[i].low & table.mask;
        for (;; slot = (slot + 1) & table.mask) {
            Fingerprint &found = table.at[slot];
            if (found.low == 0 && found.high == 0) {
                found = rows[i];
                fresh++;
                break;
            }
            if (found.low == rows[i].low && found.high == rows[i].high) break;
        }
    }
    return fresh;
}

void add(const Table<Sums> &table, const Fingerprint *rows) {
    static constexpr int64_t RATES[3] = {600'000'000, 300'000'000, 2'400'000'000};
    for (int64_t i = 0; i < BATCH; i++) {
        if (i + AHEAD < BATCH) __builtin_prefetch(&table.at[mixed(rows[i + AHEAD].high) & table.mask], 1);
        uint64_t key = mixed(rows[i].high) & table.mask;
        Sums &sums = table.at[key];
        sums.key = key;
        sums.events++;
        for (int meter = 0; meter < 3; meter++) {
            int64_t quantity = static_cast<int64_t>(rows[i].low >> (10 * meter) & 1023);
            sums.amounts[meter] += static_cast<__int128>(quantity) * RATES[meter];
        }
    }
}

}  // namespace

int main(int count, char **arguments) {
    if (count != 3) {
        std::fprintf(stderr, "usage: limit EVENTS TABLE_BYTES\n");
        return 2;
    }
    int64_t batches = std::atoll(arguments[1]) / BATCH;
    uint64_t bytes = std::strtoull(arguments[2], nullptr, 10);
    Table<Block> blocks(bytes);
    Table<Fingerprint> known(bytes);
    Table<Sums> sums(bytes);
    if (batches < 1 || static_cast<uint64_t>(batches * BATCH) > known.mask / 2) {
        std::fprintf(stderr, "limit: at least %lld events, and at most half of what the table of fingerprints holds\n",
                     static_cast<long long>(BATCH));
        return 2;
    }
    auto *rows = static_cast<Fingerprint *>(std::malloc(BATCH * sizeof(Fingerprint)));
    int64_t spent[4] = {}, seen = 0, fresh = 0;
    for (int64_t batch = 0; batch < batches; batch++) {
        int64_t times[5];
        times[0] = now_ns();
        hash(batch * BATCH, rows);
        times[1] = now_ns();
        seen += filter(blocks, rows);
        times[2] = now_ns();
        fresh += insert(known, rows);
        times[3] = now_ns();
        add(sums, rows);
        times[4] = now_ns();
        for (int stage = 0; stage < 4; stage++) spent[stage] += times[stage + 1] - times[stage];
    }
    uint64_t events = 0;
    for (uint64_t n = 0; n <= sums.mask; n++) events += sums.at[n].events;
    int64_t all = batches * BATCH;
    if (fresh != all || events != static_cast<uint64_t>(all) || seen > all / 100) {
        std::fprintf(stderr, "limit: %lld of %lld ids are new, %llu events were added, %lld passed the filter\n",
                     static_cast<long long>(fresh), static_cast<long long>(all), static_cast<unsigned long long>(events),
                     static_cast<long long>(seen));
        return 1;
    }
    std::printf("{\"hash\": %.2f, \"filter\": %.2f, \"exact table\": %.2f, \"sums\": %.2f}\n",
                static_cast<double>(spent[0]) / all, static_cast<double>(spent[1]) / all,
                static_cast<double>(spent[2]) / all, static_cast<double>(spent[3]) / all);
    return 0;
}
