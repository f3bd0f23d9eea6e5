// What a hash of a cache server does for deduplication: std::unordered_map of a 128-bit id to 64 bits of payload hash.
//
//     hash_map IDS       prints ns an event, bytes an id, and how many were new, as JSON
//
// Ids are made a batch at a time, outside of what is measured; in each batch but the first, one row in a hundred repeats
// the batch before.

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>
#include <vector>

struct Id {
    uint64_t lo, hi;
    bool operator==(const Id &other) const { return lo == other.lo && hi == other.hi; }
};

struct Hash {
    size_t operator()(const Id &id) const { return id.lo; }
};

static uint64_t state = 88172645463325252ULL;

static uint64_t next() {  // splitmix64
    uint64_t z = (state += 0x9e3779b97f4a7c15ULL);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
    return z ^ (z >> 31);
}

static long resident_bytes() {
    long pages = 0, resident = 0;
    FILE *file = fopen("/proc/self/statm", "r");
    if (!file || fscanf(file, "%ld %ld", &pages, &resident) != 2) abort();
    fclose(file);
    return resident * 4096;
}

int main(int, char **arguments) {
    const long ids = atol(arguments[1]), rows = 131072;
    std::unordered_map<Id, uint64_t, Hash> known;
    std::vector<Id> batch(rows), before;
    long fresh = 0, events = 0;
    const long at_first = resident_bytes();
    double ns = 0;
    while (events < ids) {
        before = batch;
        for (long n = 0; n < rows; n++) batch[n] = events && n % 100 == 99 ? before[n - 1] : Id{next(), next()};
        auto begun = std::chrono::steady_clock::now();
        for (const Id &id : batch) fresh += known.emplace(id, id.hi).second;
        ns += std::chrono::duration<double, std::nano>(std::chrono::steady_clock::now() - begun).count();
        events += rows;
    }
    printf("{\"ns\": %.2f, \"bytes\": %.1f, \"new\": %ld, \"events\": %ld}\n", ns / events,
           double(resident_bytes() - at_first) / fresh, fresh, events);
}
