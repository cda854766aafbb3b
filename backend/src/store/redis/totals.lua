-- Adds what a gateway has decided about a round since it last told. A gateway tells totals since its start, so one that
-- tells twice, or here and there, is counted once.
--
-- KEYS  1 told   hash of this gateway: decision -> its total, as last told
--       2 sums   hash of all gateways: decision -> requests
-- ARGV  1 expires ms, when the keys may go
--       then decision and total, for each
-- Reply: how many requests were added.
local added = 0
for i = 2, #ARGV, 2 do
    local decision, total = ARGV[i], tonumber(ARGV[i + 1])
    local more = total - tonumber(redis.call('HGET', KEYS[1], decision) or 0)
    if more > 0 then
        redis.call('HSET', KEYS[1], decision, ARGV[i + 1])
        redis.call('HINCRBY', KEYS[2], decision, string.format('%.0f', more))
        added = added + more
    end
end
redis.call('PEXPIREAT', KEYS[1], ARGV[1])
redis.call('PEXPIREAT', KEYS[2], ARGV[1])
return added
