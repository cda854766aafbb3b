-- Drops a place that PostgreSQL contradicts, and has the round rebuilt: Redis is behind. The dropped number is not given
-- back, the rebuilding finds out whose it is. Of two that hear of one contradiction the later must not undo what the
-- earlier has done since: the place goes only if the user holds exactly it, and the round is marked only if that
-- happened here, or while it shows the epoch under which the contradiction was met.
--
-- KEYS  1 round  2 users  3 pending
-- ARGV  1 epoch  2 user ('' drops nothing)  3 place, CODE:NUMBER
-- Reply: 1 if the round is marked cold now, 0 if this was about the past.
local dropped = ARGV[2] ~= '' and redis.call('HGET', KEYS[2], ARGV[2]) == ARGV[3]
if dropped then
    redis.call('HDEL', KEYS[2], ARGV[2])
    redis.call('ZREM', KEYS[3], ARGV[3] .. ':' .. ARGV[2])
end
if not dropped and redis.call('HGET', KEYS[1], 'epoch') ~= ARGV[1] then
    return 0
end
redis.call('HSET', KEYS[1], 'cold', 1)
return 1
