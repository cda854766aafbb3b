-- Claims this Redis and prefix for an installation, or says whose they are. One script, so that of
-- two installations that come at the same time one is refused.
--
-- KEYS  1 owner         hash: installation, lineage, version (the highest committed one that was
--                       ever told here), place and address (of its database), holder (the backend
--                       that claimed last), seen (when, ms)
-- ARGV  1 installation
--       2 lineage       written where there is none, or where 3 is shown
--       3 replaces      the lineage that this one replaces, or ''
--       4 version       the highest committed one
--       5 place         tells the database from its copies
--       6 address       of the database, for people
--       7 holder        the backend that claims
--       8 patience, ms  a database that was not heard of for so long is not in use any more
--
-- Reply {status, installation, lineage, version, address, idle_ms}, as shown before, but for the
-- lineage, which is the one shown from now on:
--   ours      they are this installation's
--   foreign   they are another installation's, whether it is in use or not
--   copy      they are used with another database of this installation
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local owner = redis.call('HMGET', KEYS[1],
    'installation', 'lineage', 'version', 'place', 'address', 'holder', 'seen')
local installation, lineage, version, place, address, holder = unpack(owner, 1, 6)
local idle = now - tonumber(owner[7] or 0)

local function reply(status)
    version = tonumber(version or 0)
    return {status, installation or ARGV[1], lineage or '', version, address or '', idle}
end

if installation and installation ~= ARGV[1] then
    return reply('foreign')
end
-- A backend whose own database was exchanged may go on with it at once.
if place and place ~= ARGV[5] and holder ~= ARGV[7] and idle < tonumber(ARGV[8]) then
    return reply('copy')
end
if not lineage or lineage == ARGV[3] then
    lineage = ARGV[2]
end
local highest = math.max(tonumber(version or 0), tonumber(ARGV[4]))
-- A script that begins by freeing memory may write also when Redis is full.
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'installation', ARGV[1], 'lineage', lineage,
    'version', string.format('%.0f', highest), 'place', ARGV[5], 'address', ARGV[6],
    'holder', ARGV[7], 'seen', string.format('%.0f', now))
return reply('ours')
