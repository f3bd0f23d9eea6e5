-- The public views (DESIGN 3.4): minute, hour and day from rollup_minute, week and month from rollup_day, which has neither
-- project nor model. All have one shape:
--   1. the inner query adds up the rows of one key and window (parts that are not merged yet hold several); equal keys have
--      equal dimensions and meters, so ANY of them will do;
--   2. the four slots become rows, one a meter, and are added up over the keys that differ in what a view
--      leaves out.
-- Amounts of a meter that is called `meter/per` are in units of 10^-15 / per (docs/decisions/012-fractional-rates.md), so
-- step 2 adds up parts: parts_per_unit, which every `per` divides, of them are 10^-15 currency units. A row of storage is
-- within 2^100 units and a unit has fewer than 2^117 parts: 256 bits have room for 2^38 rows.
-- `exact_usage_by_...` has, beside the columns of `usage_by_...`, those parts that are no whole unit: amount_remainder.
-- Sums run in 256 bits and are cast back by functions that throw when the value does not fit: sum() over
-- Int128 or Decimal(38, 15) would wrap, and so would CAST to Int128. A digest alone wraps, by definition.
-- A filter on customer or window_start reaches the primary key through step 1, since both are grouping
-- columns there. CAST, and not toDateTime(), turns a Date into a DateTime: the index sees through CAST only.
-- The six say the same for other columns, and are written out: a view cannot be given the columns that it groups by, and
-- one upon a finer one would add up twice. tests/unit/test_views.py holds all of them to plain Python.

CREATE OR REPLACE VIEW exact_usage_by_minute AS
WITH
    toInt256('123166554132129049031478882173280000') AS parts_per_unit,
    if(
        position(name, '/') = 0,
        parts_per_unit,
        intDiv(parts_per_unit, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))
    ) AS weight,
    sum(reinterpret(slot_amount, 'Int256') * weight) AS parts,
    positiveModulo(parts, parts_per_unit) AS remainder
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    sums.project AS project,
    sums.feature AS feature,
    sums.model AS model,
    sums.region AS region,
    sums.service_tier AS service_tier,
    if(position(name, '/') = 0, name, splitByChar('/', name)[1]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(reinterpret(intDiv(parts - remainder, parts_per_unit), 'Decimal(76, 15)'), 'Decimal(38, 15)') AS amount,
    toUInt128(remainder) AS amount_remainder,
    sums.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(sums.unpriced, slot)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        stored.window_start AS start,
        stored.customer AS customer,
        stored.key AS key,
        any(stored.project) AS project,
        any(stored.feature) AS feature,
        any(stored.model) AS model,
        any(stored.region) AS region,
        any(stored.service_tier) AS service_tier,
        any(stored.currency) AS currency,
        splitByChar(',', any(stored.meters)) AS meters,
        any(stored.unpriced) AS unpriced,
        sum(stored.events) AS events,
        sum(stored.digest) AS digest,
        [
            sum(toInt256(stored.q0)),
            sum(toInt256(stored.q1)),
            sum(toInt256(stored.q2)),
            sum(toInt256(stored.q3))
        ] AS quantities,
        [
            sum(toDecimal256(stored.a0, 15)),
            sum(toDecimal256(stored.a1, 15)),
            sum(toDecimal256(stored.a2, 15)),
            sum(toDecimal256(stored.a3, 15))
        ] AS amounts
    FROM rollup_minute AS stored
    GROUP BY start, stored.customer, stored.key
) AS sums
ARRAY JOIN [0, 1, 2, 3] AS slot, sums.meters AS name, quantities AS slot_quantity, amounts AS slot_amount
WHERE name != ''
GROUP BY window_start, customer, project, feature, model, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_minute AS
SELECT
    window_start, customer, project, feature, model, region, service_tier, meter, quantity, amount, currency,
    events, unpriced_quantity, digest
FROM exact_usage_by_minute;

CREATE OR REPLACE VIEW exact_usage_by_hour AS
WITH
    toInt256('123166554132129049031478882173280000') AS parts_per_unit,
    if(
        position(name, '/') = 0,
        parts_per_unit,
        intDiv(parts_per_unit, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))
    ) AS weight,
    sum(reinterpret(slot_amount, 'Int256') * weight) AS parts,
    positiveModulo(parts, parts_per_unit) AS remainder
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    sums.project AS project,
    sums.feature AS feature,
    sums.model AS model,
    sums.region AS region,
    sums.service_tier AS service_tier,
    if(position(name, '/') = 0, name, splitByChar('/', name)[1]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(reinterpret(intDiv(parts - remainder, parts_per_unit), 'Decimal(76, 15)'), 'Decimal(38, 15)') AS amount,
    toUInt128(remainder) AS amount_remainder,
    sums.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(sums.unpriced, slot)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        toStartOfHour(stored.window_start) AS start,
        stored.customer AS customer,
        stored.key AS key,
        any(stored.project) AS project,
        any(stored.feature) AS feature,
        any(stored.model) AS model,
        any(stored.region) AS region,
        any(stored.service_tier) AS service_tier,
        any(stored.currency) AS currency,
        splitByChar(',', any(stored.meters)) AS meters,
        any(stored.unpriced) AS unpriced,
        sum(stored.events) AS events,
        sum(stored.digest) AS digest,
        [
            sum(toInt256(stored.q0)),
            sum(toInt256(stored.q1)),
            sum(toInt256(stored.q2)),
            sum(toInt256(stored.q3))
        ] AS quantities,
        [
            sum(toDecimal256(stored.a0, 15)),
            sum(toDecimal256(stored.a1, 15)),
            sum(toDecimal256(stored.a2, 15)),
            sum(toDecimal256(stored.a3, 15))
        ] AS amounts
    FROM rollup_minute AS stored
    GROUP BY start, stored.customer, stored.key
) AS sums
ARRAY JOIN [0, 1, 2, 3] AS slot, sums.meters AS name, quantities AS slot_quantity, amounts AS slot_amount
WHERE name != ''
GROUP BY window_start, customer, project, feature, model, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_hour AS
SELECT
    window_start, customer, project, feature, model, region, service_tier, meter, quantity, amount, currency,
    events, unpriced_quantity, digest
FROM exact_usage_by_hour;

CREATE OR REPLACE VIEW exact_usage_by_day AS
WITH
    toInt256('123166554132129049031478882173280000') AS parts_per_unit,
    if(
        position(name, '/') = 0,
        parts_per_unit,
        intDiv(parts_per_unit, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))
    ) AS weight,
    sum(reinterpret(slot_amount, 'Int256') * weight) AS parts,
    positiveModulo(parts, parts_per_unit) AS remainder
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    sums.project AS project,
    sums.feature AS feature,
    sums.model AS model,
    sums.region AS region,
    sums.service_tier AS service_tier,
    if(position(name, '/') = 0, name, splitByChar('/', name)[1]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(reinterpret(intDiv(parts - remainder, parts_per_unit), 'Decimal(76, 15)'), 'Decimal(38, 15)') AS amount,
    toUInt128(remainder) AS amount_remainder,
    sums.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(sums.unpriced, slot)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        CAST(toStartOfDay(stored.window_start), 'DateTime(''UTC'')') AS start,
        stored.customer AS customer,
        stored.key AS key,
        any(stored.project) AS project,
        any(stored.feature) AS feature,
        any(stored.model) AS model,
        any(stored.region) AS region,
        any(stored.service_tier) AS service_tier,
        any(stored.currency) AS currency,
        splitByChar(',', any(stored.meters)) AS meters,
        any(stored.unpriced) AS unpriced,
        sum(stored.events) AS events,
        sum(stored.digest) AS digest,
        [
            sum(toInt256(stored.q0)),
            sum(toInt256(stored.q1)),
            sum(toInt256(stored.q2)),
            sum(toInt256(stored.q3))
        ] AS quantities,
        [
            sum(toDecimal256(stored.a0, 15)),
            sum(toDecimal256(stored.a1, 15)),
            sum(toDecimal256(stored.a2, 15)),
            sum(toDecimal256(stored.a3, 15))
        ] AS amounts
    FROM rollup_minute AS stored
    GROUP BY start, stored.customer, stored.key
) AS sums
ARRAY JOIN [0, 1, 2, 3] AS slot, sums.meters AS name, quantities AS slot_quantity, amounts AS slot_amount
WHERE name != ''
GROUP BY window_start, customer, project, feature, model, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_day AS
SELECT
    window_start, customer, project, feature, model, region, service_tier, meter, quantity, amount, currency,
    events, unpriced_quantity, digest
FROM exact_usage_by_day;

-- Not part of the public contract: what an invoice reads where neither projects, models nor minutes are asked for.
CREATE OR REPLACE VIEW exact_usage_by_day_coarse AS
WITH
    toInt256('123166554132129049031478882173280000') AS parts_per_unit,
    if(
        position(name, '/') = 0,
        parts_per_unit,
        intDiv(parts_per_unit, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))
    ) AS weight,
    sum(reinterpret(slot_amount, 'Int256') * weight) AS parts,
    positiveModulo(parts, parts_per_unit) AS remainder
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    sums.feature AS feature,
    sums.region AS region,
    sums.service_tier AS service_tier,
    if(position(name, '/') = 0, name, splitByChar('/', name)[1]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(reinterpret(intDiv(parts - remainder, parts_per_unit), 'Decimal(76, 15)'), 'Decimal(38, 15)') AS amount,
    toUInt128(remainder) AS amount_remainder,
    sums.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(sums.unpriced, slot)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        stored.window_start AS start,
        stored.customer AS customer,
        stored.key AS key,
        any(stored.feature) AS feature,
        any(stored.region) AS region,
        any(stored.service_tier) AS service_tier,
        any(stored.currency) AS currency,
        splitByChar(',', any(stored.meters)) AS meters,
        any(stored.unpriced) AS unpriced,
        sum(stored.events) AS events,
        sum(stored.digest) AS digest,
        [
            sum(toInt256(stored.q0)),
            sum(toInt256(stored.q1)),
            sum(toInt256(stored.q2)),
            sum(toInt256(stored.q3))
        ] AS quantities,
        [
            sum(toDecimal256(stored.a0, 15)),
            sum(toDecimal256(stored.a1, 15)),
            sum(toDecimal256(stored.a2, 15)),
            sum(toDecimal256(stored.a3, 15))
        ] AS amounts
    FROM rollup_day AS stored
    GROUP BY start, stored.customer, stored.key
) AS sums
ARRAY JOIN [0, 1, 2, 3] AS slot, sums.meters AS name, quantities AS slot_quantity, amounts AS slot_amount
WHERE name != ''
GROUP BY window_start, customer, feature, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW exact_usage_by_week AS
WITH
    toInt256('123166554132129049031478882173280000') AS parts_per_unit,
    if(
        position(name, '/') = 0,
        parts_per_unit,
        intDiv(parts_per_unit, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))
    ) AS weight,
    sum(reinterpret(slot_amount, 'Int256') * weight) AS parts,
    positiveModulo(parts, parts_per_unit) AS remainder
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    sums.feature AS feature,
    sums.service_tier AS service_tier,
    if(position(name, '/') = 0, name, splitByChar('/', name)[1]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(reinterpret(intDiv(parts - remainder, parts_per_unit), 'Decimal(76, 15)'), 'Decimal(38, 15)') AS amount,
    toUInt128(remainder) AS amount_remainder,
    sums.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(sums.unpriced, slot)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        CAST(toMonday(stored.window_start), 'DateTime(''UTC'')') AS start,
        stored.customer AS customer,
        stored.key AS key,
        any(stored.feature) AS feature,
        any(stored.service_tier) AS service_tier,
        any(stored.currency) AS currency,
        splitByChar(',', any(stored.meters)) AS meters,
        any(stored.unpriced) AS unpriced,
        sum(stored.events) AS events,
        sum(stored.digest) AS digest,
        [
            sum(toInt256(stored.q0)),
            sum(toInt256(stored.q1)),
            sum(toInt256(stored.q2)),
            sum(toInt256(stored.q3))
        ] AS quantities,
        [
            sum(toDecimal256(stored.a0, 15)),
            sum(toDecimal256(stored.a1, 15)),
            sum(toDecimal256(stored.a2, 15)),
            sum(toDecimal256(stored.a3, 15))
        ] AS amounts
    FROM rollup_day AS stored
    GROUP BY start, stored.customer, stored.key
) AS sums
ARRAY JOIN [0, 1, 2, 3] AS slot, sums.meters AS name, quantities AS slot_quantity, amounts AS slot_amount
WHERE name != ''
GROUP BY window_start, customer, feature, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_week AS
SELECT
    window_start, customer, feature, service_tier, meter, quantity, amount, currency, events, unpriced_quantity,
    digest
FROM exact_usage_by_week;

CREATE OR REPLACE VIEW exact_usage_by_month AS
WITH
    toInt256('123166554132129049031478882173280000') AS parts_per_unit,
    if(
        position(name, '/') = 0,
        parts_per_unit,
        intDiv(parts_per_unit, greatest(toUInt32OrZero(splitByChar('/', name)[2]), 1))
    ) AS weight,
    sum(reinterpret(slot_amount, 'Int256') * weight) AS parts,
    positiveModulo(parts, parts_per_unit) AS remainder
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    sums.feature AS feature,
    sums.service_tier AS service_tier,
    sums.region AS region,
    if(position(name, '/') = 0, name, splitByChar('/', name)[1]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(reinterpret(intDiv(parts - remainder, parts_per_unit), 'Decimal(76, 15)'), 'Decimal(38, 15)') AS amount,
    toUInt128(remainder) AS amount_remainder,
    sums.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(sums.unpriced, slot)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        CAST(toStartOfMonth(stored.window_start), 'DateTime(''UTC'')') AS start,
        stored.customer AS customer,
        stored.key AS key,
        any(stored.feature) AS feature,
        any(stored.region) AS region,
        any(stored.service_tier) AS service_tier,
        any(stored.currency) AS currency,
        splitByChar(',', any(stored.meters)) AS meters,
        any(stored.unpriced) AS unpriced,
        sum(stored.events) AS events,
        sum(stored.digest) AS digest,
        [
            sum(toInt256(stored.q0)),
            sum(toInt256(stored.q1)),
            sum(toInt256(stored.q2)),
            sum(toInt256(stored.q3))
        ] AS quantities,
        [
            sum(toDecimal256(stored.a0, 15)),
            sum(toDecimal256(stored.a1, 15)),
            sum(toDecimal256(stored.a2, 15)),
            sum(toDecimal256(stored.a3, 15))
        ] AS amounts
    FROM rollup_day AS stored
    GROUP BY start, stored.customer, stored.key
) AS sums
ARRAY JOIN [0, 1, 2, 3] AS slot, sums.meters AS name, quantities AS slot_quantity, amounts AS slot_amount
WHERE name != ''
GROUP BY window_start, customer, feature, service_tier, region, meter, currency;

CREATE OR REPLACE VIEW usage_by_month AS
SELECT
    window_start, customer, feature, service_tier, region, meter, quantity, amount, currency, events,
    unpriced_quantity, digest
FROM exact_usage_by_month;
