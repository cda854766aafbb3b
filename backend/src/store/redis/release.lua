-- Gives a place back that can never be committed.
--
-- KEYS  1 round  2 users  3 pending  4 free
-- ARGV  1 user  2 place, CODE:NUMBER  3 number
-- Reply: 1 if the place was given back, 0 if the user does not hold it (any more).
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
    return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[2] .. ':' .. ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[3])
redis.call('PEXPIRE', KEYS[4], math.max(redis.call('PTTL', KEYS[1]), 1))
return 1
