-- Counts voided coupons per round, since counting them when an operator looks would read every void
-- there is.
CREATE FUNCTION count_void() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    UPDATE rounds SET void = rounds.void + 1
      FROM coupons
     WHERE coupons.code = NEW.code
       AND rounds.campaign = coupons.campaign AND rounds.round = coupons.round;
    RETURN NULL;
END
$$;

-- At the end of the transaction, because it takes the round's row, for which commits wait. The lock
-- that this statement takes keeps voids out until the existing ones are counted below: about a
-- second for a million voids. Issuing and redeeming go on meanwhile.
CREATE CONSTRAINT TRIGGER voids_counted
    AFTER INSERT ON voids DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW EXECUTE FUNCTION count_void();

UPDATE rounds SET void = counted.void
  FROM (SELECT campaign, round, count(*) AS void FROM voids JOIN coupons USING (code)
         GROUP BY campaign, round) counted
 WHERE rounds.campaign = counted.campaign AND rounds.round = counted.round;
