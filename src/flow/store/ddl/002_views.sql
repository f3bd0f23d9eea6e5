-- The public views (DESIGN 3.4): minute, hour and day from rollup_minute, week and month from rollup_day, which has neither
-- project nor model. All have one shape:
--   1. the inner query adds up the rows of one key and window (parts that are not merged yet hold several);
--   2. the key's dimensions and meters are looked up; ANY, because `keys` may hold the same row many times;
--   3. the four slots become rows, one a meter, and are added up over the keys that differ in what a view
--      leaves out.
-- Sums run in 256 bits and are cast back by functions that throw when the value does not fit: sum() over
-- Int128 or Decimal(38, 15) would wrap, and so would CAST to Int128. A digest alone wraps, by definition.
-- A filter on customer or window_start reaches the primary key through step 1, since both are grouping
-- columns there. CAST, and not toDateTime(), turns a Date into a DateTime: the index sees through CAST only.
-- A row whose key is not in `keys` stays visible, one row a slot that is not 0, with the meter
-- '(unknown key) slot N'.

CREATE OR REPLACE VIEW usage_by_minute AS
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    names.project AS project,
    names.feature AS feature,
    names.model AS model,
    names.region AS region,
    names.service_tier AS service_tier,
    if(empty(names.meters), '(unknown key) slot ' || toString(slot - 1), names.meters[slot]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(sum(slot_amount), 'Decimal(38, 15)') AS amount,
    names.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(names.unpriced, slot - 1)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        stored.window_start AS start,
        stored.customer AS customer,
        stored.key AS key,
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
ANY LEFT JOIN keys AS names ON sums.customer = names.customer AND sums.key = names.key
ARRAY JOIN [1, 2, 3, 4] AS slot, quantities AS slot_quantity, amounts AS slot_amount
WHERE if(empty(names.meters), slot = 1 OR slot_quantity != 0 OR slot_amount != 0, names.meters[slot] != '')
GROUP BY window_start, customer, project, feature, model, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_hour AS
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    names.project AS project,
    names.feature AS feature,
    names.model AS model,
    names.region AS region,
    names.service_tier AS service_tier,
    if(empty(names.meters), '(unknown key) slot ' || toString(slot - 1), names.meters[slot]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(sum(slot_amount), 'Decimal(38, 15)') AS amount,
    names.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(names.unpriced, slot - 1)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        toStartOfHour(stored.window_start) AS start,
        stored.customer AS customer,
        stored.key AS key,
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
ANY LEFT JOIN keys AS names ON sums.customer = names.customer AND sums.key = names.key
ARRAY JOIN [1, 2, 3, 4] AS slot, quantities AS slot_quantity, amounts AS slot_amount
WHERE if(empty(names.meters), slot = 1 OR slot_quantity != 0 OR slot_amount != 0, names.meters[slot] != '')
GROUP BY window_start, customer, project, feature, model, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_day AS
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    names.project AS project,
    names.feature AS feature,
    names.model AS model,
    names.region AS region,
    names.service_tier AS service_tier,
    if(empty(names.meters), '(unknown key) slot ' || toString(slot - 1), names.meters[slot]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(sum(slot_amount), 'Decimal(38, 15)') AS amount,
    names.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(names.unpriced, slot - 1)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        CAST(toStartOfDay(stored.window_start), 'DateTime(''UTC'')') AS start,
        stored.customer AS customer,
        stored.key AS key,
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
ANY LEFT JOIN keys AS names ON sums.customer = names.customer AND sums.key = names.key
ARRAY JOIN [1, 2, 3, 4] AS slot, quantities AS slot_quantity, amounts AS slot_amount
WHERE if(empty(names.meters), slot = 1 OR slot_quantity != 0 OR slot_amount != 0, names.meters[slot] != '')
GROUP BY window_start, customer, project, feature, model, region, service_tier, meter, currency;

-- Not part of the public contract: what an invoice reads where neither projects, models nor minutes are asked for.
CREATE OR REPLACE VIEW usage_by_day_coarse AS
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    names.feature AS feature,
    names.region AS region,
    names.service_tier AS service_tier,
    if(empty(names.meters), '(unknown key) slot ' || toString(slot - 1), names.meters[slot]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(sum(slot_amount), 'Decimal(38, 15)') AS amount,
    names.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(names.unpriced, slot - 1)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        stored.window_start AS start,
        stored.customer AS customer,
        stored.key AS key,
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
ANY LEFT JOIN keys AS names ON sums.customer = names.customer AND sums.key = names.key
ARRAY JOIN [1, 2, 3, 4] AS slot, quantities AS slot_quantity, amounts AS slot_amount
WHERE if(empty(names.meters), slot = 1 OR slot_quantity != 0 OR slot_amount != 0, names.meters[slot] != '')
GROUP BY window_start, customer, feature, region, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_week AS
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    names.feature AS feature,
    names.service_tier AS service_tier,
    if(empty(names.meters), '(unknown key) slot ' || toString(slot - 1), names.meters[slot]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(sum(slot_amount), 'Decimal(38, 15)') AS amount,
    names.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(names.unpriced, slot - 1)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        CAST(toMonday(stored.window_start), 'DateTime(''UTC'')') AS start,
        stored.customer AS customer,
        stored.key AS key,
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
ANY LEFT JOIN keys AS names ON sums.customer = names.customer AND sums.key = names.key
ARRAY JOIN [1, 2, 3, 4] AS slot, quantities AS slot_quantity, amounts AS slot_amount
WHERE if(empty(names.meters), slot = 1 OR slot_quantity != 0 OR slot_amount != 0, names.meters[slot] != '')
GROUP BY window_start, customer, feature, service_tier, meter, currency;

CREATE OR REPLACE VIEW usage_by_month AS
SELECT
    sums.start AS window_start,
    sums.customer AS customer,
    names.feature AS feature,
    names.service_tier AS service_tier,
    names.region AS region,
    if(empty(names.meters), '(unknown key) slot ' || toString(slot - 1), names.meters[slot]) AS meter,
    accurateCast(sum(slot_quantity), 'Int128') AS quantity,
    CAST(sum(slot_amount), 'Decimal(38, 15)') AS amount,
    names.currency AS currency,
    sum(sums.events) AS events,
    accurateCast(sumIf(slot_quantity, bitTest(names.unpriced, slot - 1)), 'Int128') AS unpriced_quantity,
    sum(sums.digest) AS digest
FROM (
    SELECT
        CAST(toStartOfMonth(stored.window_start), 'DateTime(''UTC'')') AS start,
        stored.customer AS customer,
        stored.key AS key,
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
ANY LEFT JOIN keys AS names ON sums.customer = names.customer AND sums.key = names.key
ARRAY JOIN [1, 2, 3, 4] AS slot, quantities AS slot_quantity, amounts AS slot_amount
WHERE if(empty(names.meters), slot = 1 OR slot_quantity != 0 OR slot_amount != 0, names.meters[slot] != '')
GROUP BY window_start, customer, feature, service_tier, region, meter, currency;
