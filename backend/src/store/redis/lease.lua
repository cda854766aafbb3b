-- Takes, keeps or gives back the lease by which one backend at a time rebuilds a round.
--
-- Only work is spared by it: who rebuilds without it is fenced by the epoch.
--
-- KEYS  1 lease
-- ARGV  1 holder
--       2 ms  for how long, from now; 0 gives it back
-- Reply: 1 if the holder has it, or has given it back; 0 if it is another's.
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] then
    return 0
end
if ARGV[2] == '0' then
    redis.call('DEL', KEYS[1])
else
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
end
return 1
