-- Marks a round cold, whatever it shows: PostgreSQL has gone back, and what is here may not exist
-- any more. What is pending stays, and is merged when the round is rebuilt.
--
-- KEYS  1 round
-- Reply: 1 if it is cold now, 0 if it is not here.
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
-- A script that begins by freeing memory may write also when Redis is full.
redis.call('HDEL', KEYS[1], 'cold')
redis.call('HSET', KEYS[1], 'cold', 1)
return 1
