-- Puts a round's rebuilt keys in place of the old ones. One script, since a reservation made between two of its steps
-- would be lost.
--
-- The staged keys hold what PostgreSQL has. What is pending here is merged in: an entry whose code PostgreSQL holds is
-- committed; one whose user or number it holds under another code is dropped; the rest stays pending, now under the
-- new epoch.
--
-- KEYS  1 version  2 round  3 users  4 pending  5 free  6 staged users  7 staged free
-- ARGV  1 epoch    drawn from PostgreSQL under the round's lock
--       2 version  of the campaign, read under its lock
--       3 next     the highest number PostgreSQL has; those below it that it lacks are staged as free
--       4 users    how many are staged, and
--       5 free     how many numbers: if fewer are found, Redis lost some of them meanwhile
--       6 expires  ms, when the keys may go; at least an hour is left, since what is pending must be settled first
-- Reply: 'swapped', 'older' if this epoch is not above the one in Redis, 'lost' if what was staged is not whole.
local shown = redis.call('HGET', KEYS[2], 'epoch')
if shown and tonumber(shown) >= tonumber(ARGV[1]) then
    redis.call('UNLINK', KEYS[6], KEYS[7])
    return 'older'
end
if redis.call('HLEN', KEYS[6]) ~= tonumber(ARGV[4]) or redis.call('ZCARD', KEYS[7]) ~= tonumber(ARGV[5]) then
    redis.call('UNLINK', KEYS[6], KEYS[7])
    return 'lost'
end

local next_number = tonumber(ARGV[3])
for _, member in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    local entry, number, user = member:match('^(%w+:(%d+)):(.+)$')
    number = tonumber(number)
    local keep = not redis.call('HGET', KEYS[6], user)
    if keep and number > next_number then
        for gap = next_number + 1, number - 1 do
            redis.call('ZADD', KEYS[7], gap, gap)
        end
        next_number = number
    elseif keep then
        keep = redis.call('ZREM', KEYS[7], number) == 1
    end
    if keep then
        redis.call('HSET', KEYS[6], user, entry)
    else
        redis.call('ZREM', KEYS[4], member)
    end
end

redis.call('UNLINK', KEYS[3], KEYS[5])
for staged, live in pairs({[KEYS[6]] = KEYS[3], [KEYS[7]] = KEYS[5]}) do
    if redis.call('EXISTS', staged) == 1 then
        redis.call('RENAME', staged, live)
    end
end
if tonumber(redis.call('GET', KEYS[1]) or 0) < tonumber(ARGV[2]) then
    redis.call('SET', KEYS[1], ARGV[2])
end
redis.call('HSET', KEYS[2], 'epoch', ARGV[1], 'next', string.format('%.0f', next_number))
redis.call('HDEL', KEYS[2], 'cold')
local expires = math.max(tonumber(ARGV[6]), (redis.call('TIME')[1] + 3600) * 1000)
for key = 2, 5 do
    redis.call('PEXPIREAT', KEYS[key], string.format('%.0f', expires))
end
return 'swapped'
