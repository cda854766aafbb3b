-- Drops a reservation that PostgreSQL contradicts, and has the round rebuilt: Redis is behind. The entry goes only while
-- it is pending under this code; the round is marked only while it shows the epoch under which the conflict was met.
-- Its number is not given back: the rebuilding finds out whose it is.
--
-- KEYS  1 round  2 users  3 pending
-- ARGV  1 user ('' drops nothing)  2 code  3 epoch
-- Reply: 1 if the round is marked cold now, 0 if it shows another epoch.
if ARGV[1] ~= '' then
    local held = redis.call('HGET', KEYS[2], ARGV[1])
    if held and held:match('^' .. ARGV[2] .. ':%d+$') then
        redis.call('HDEL', KEYS[2], ARGV[1])
        redis.call('ZREM', KEYS[3], held .. ':' .. ARGV[1])
    end
end
if redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[3] then
    return 0
end
redis.call('HSET', KEYS[1], 'cold', 1)
return 1
