-- Decides one issue request and reserves its place: in one script, so that no two requests are given one number, and
-- none is decided by a clock, a quota or a version other than the one it is recorded under.
--
-- KEYS  1 version   the campaign's version
--       2 round     hash: epoch, next (highest number ever given), cold (set when it must be rebuilt from PostgreSQL)
--       3 users     hash: user -> CODE when committed, CODE:NUMBER while pending
--       4 pending   sorted set: CODE:NUMBER:USER by the Redis time of its reservation, ms
--       5 free      sorted set: numbers given back
-- ARGV  1 user      '' only looks
--       2 code      drawn by the caller; the reservation's id
--       3 version   of the campaign as the caller knows it; quota and window below belong to it
--       4 quota     '' for no limit
--       5 opens     ms, the first instant in the round
--       6 closes    ms, the first instant after it
--       7 expires   ms, when the keys may go
--
-- Replies {status, now_ms, committed, reserved, code, number, epoch, since_ms}; '' and 0 where there is nothing to say:
--   cold            the round is not here, is to be rebuilt, or PostgreSQL knows a newer version; epoch: the one shown
--   stale           the campaign has a newer version (in number)
--   outside         Redis's clock is not in [opens, closes)
--   sold_out        as many coupons as the quota are committed
--   open            user was '': a coupon could still be had, or will be if a pending one is given back
--   already_issued  the user's coupon is committed; its code
--   pending         the user holds a place since since_ms; its code and number, to be committed under epoch
--   busy            every place left is held by somebody
--   reserved        the place is this request's
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local shown = redis.call('HMGET', KEYS[2], 'epoch', 'next', 'cold')
local epoch = tonumber(shown[1] or 0)
local version = tonumber(redis.call('GET', KEYS[1]) or 0)
local asked = tonumber(ARGV[3])
if version > asked then
    return {'stale', now, 0, 0, '', version, epoch, 0}
end
if version < asked or epoch == 0 or shown[3] then
    return {'cold', now, 0, 0, '', 0, epoch, 0}
end
if now < tonumber(ARGV[5]) or now >= tonumber(ARGV[6]) then
    return {'outside', now, 0, 0, '', 0, epoch, 0}
end

local quota = ARGV[4] == '' and math.huge or tonumber(ARGV[4])
local reserved = redis.call('HLEN', KEYS[3])
local committed = reserved - redis.call('ZCARD', KEYS[4])
if committed >= quota then
    return {'sold_out', now, committed, reserved, '', 0, epoch, 0}
end
local user = ARGV[1]
if user == '' then
    return {'open', now, committed, reserved, '', 0, epoch, 0}
end
local held = redis.call('HGET', KEYS[3], user)
if held then
    local code, number = held:match('^(%w+):(%d+)$')
    if not code then
        return {'already_issued', now, committed, reserved, held, 0, epoch, 0}
    end
    local since = redis.call('ZSCORE', KEYS[4], held .. ':' .. user)
    return {'pending', now, committed, reserved, code, tonumber(number), epoch, math.floor(tonumber(since or now))}
end
if reserved >= quota then
    return {'busy', now, committed, reserved, '', 0, epoch, 0}
end

-- A number given back goes first. One above a quota that was lowered since stays where it is.
local number = tonumber(redis.call('ZRANGE', KEYS[5], 0, 0)[1])
if number and number <= quota then
    redis.call('ZREM', KEYS[5], number)
else
    number = tonumber(shown[2] or 0) + 1
    if number > quota then
        -- Fewer places are held than the quota, yet no number up to it is left: what is here does not add up.
        redis.call('HSET', KEYS[2], 'cold', 1)
        return {'cold', now, 0, 0, '', 0, epoch, 0}
    end
    redis.call('HSET', KEYS[2], 'next', number)
end
local entry = string.format('%s:%.0f', ARGV[2], number)
redis.call('HSET', KEYS[3], user, entry)
redis.call('ZADD', KEYS[4], now, entry .. ':' .. user)
-- A key that has just come into being has no expiry yet.
if reserved == 0 then
    redis.call('PEXPIREAT', KEYS[3], ARGV[7])
end
if reserved == committed then
    redis.call('PEXPIREAT', KEYS[4], ARGV[7])
end
return {'reserved', now, committed, reserved + 1, ARGV[2], number, epoch, now}
