-- Raises a campaign's version, never lowers it: of two writers the later version stands, in whichever order they come.
--
-- KEYS  1 version
-- ARGV  1 version
-- Reply: the version shown now.
local shown = tonumber(redis.call('GET', KEYS[1]) or 0)
if shown < tonumber(ARGV[1]) then
    redis.call('SET', KEYS[1], ARGV[1])
    return tonumber(ARGV[1])
end
return shown
