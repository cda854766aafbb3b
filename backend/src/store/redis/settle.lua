-- Marks reservations as committed: one script for a batch of one round, run behind the replies. An entry that is not
-- pending under its code (settled by somebody else, lost with Redis, dropped by a hydration) is left as it is.
--
-- KEYS  1 round  2 users  3 pending
-- ARGV  user, code and number of the committed row, for each
-- Reply: how many entries changed.
local changed = 0
for i = 1, #ARGV, 3 do
    local user, code, number = ARGV[i], ARGV[i + 1], ARGV[i + 2]
    local held = redis.call('HGET', KEYS[2], user)
    local held_number = held and held:match('^' .. code .. ':(%d+)$')
    if held_number then
        redis.call('HSET', KEYS[2], user, code)
        redis.call('ZREM', KEYS[3], held .. ':' .. user)
        changed = changed + 1
        -- The row has another number than Redis holds for it: one of the two belongs to somebody else.
        if held_number ~= number then
            redis.call('HSET', KEYS[1], 'cold', 1)
        end
    end
end
return changed
