-- Gives a place back that can never be committed. Only while it is pending under this code.
--
-- KEYS  1 round  2 users  3 pending  4 free
-- ARGV  1 user  2 code
-- Reply: 1 if the place was given back, 0 if there was nothing to do.
local held = redis.call('HGET', KEYS[2], ARGV[1])
local number = held and held:match('^' .. ARGV[2] .. ':(%d+)$')
if not number then
    return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], held .. ':' .. ARGV[1])
redis.call('ZADD', KEYS[4], number, number)
redis.call('PEXPIRE', KEYS[4], math.max(redis.call('PTTL', KEYS[1]), 1))
return 1
