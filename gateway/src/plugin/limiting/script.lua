-- One check of one limit, over all its windows: all are charged, or none is.
--
-- KEYS: one for each window. ARGV:
--   1 strategy: f fixed window, c sliding counter, l sliding log, b bucket
--   2 mode: check, or add (charged whether or not it fits)
--   3 what a sliding counter refuses counts too: 1 or 0
--   4 cost   5 seconds, 6 nanoseconds of the moment, since the Unix epoch
--   then four numbers a window:
--     f: limit, milliseconds to keep the count, -, -
--     c: limit, number of the window, weight of the one before in 4096ths, milliseconds to keep the counts
--     l: limit, seconds and nanoseconds of the span, milliseconds to keep the log
--     b: cost in seconds and nanoseconds, room in seconds and nanoseconds
-- Reply: 1 or 0, then for each window
--     f: count   c: count of the window before, count   l: admissions, seconds and nanoseconds of the one to wait for
--     b: seconds and nanoseconds until which the bucket is ahead
-- Times are pairs: nanoseconds since the epoch have more digits than a double.
local strategy, force, penalty, cost = ARGV[1], ARGV[2] == 'add', ARGV[3] == '1', tonumber(ARGV[4])
local now_s, now_n = tonumber(ARGV[5]), tonumber(ARGV[6])
local second = 1000000000
local fits, states, reply = true, {}, { 0 }

local function plus(s, n, more_s, more_n)
  s, n = s + more_s, n + more_n
  if n >= second then return s + 1, n - second end
  return s, n
end

local function before(s, n, other_s, other_n)
  return s < other_s or (s == other_s and n < other_n)
end

local function pair(text)
  local s, n = string.match(text, '^(%d+):(%d+)$')
  return tonumber(s), tonumber(n)
end

local function text(s, n)
  return string.format('%.0f:%.0f', s, n)
end

for i, key in ipairs(KEYS) do
  local a = 7 + (i - 1) * 4
  local p, q, r, t = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local state = {}
  if strategy == 'f' then
    state.used = tonumber(redis.call('GET', key) or '0')
    fits = fits and state.used + cost <= p
  elseif strategy == 'c' then
    local kept = redis.call('HMGET', key, 'n', 'p', 'c')
    local number = tonumber(kept[1] or '-2')
    state.p, state.c = tonumber(kept[2] or '0'), tonumber(kept[3] or '0')
    if number == q - 1 then
      state.p, state.c = state.c, 0
    elseif number < q - 1 then
      state.p, state.c = 0, 0
    end
    state.n = math.max(number, q)
    fits = fits and math.ceil(state.p * r / 4096) + state.c + cost <= p
  elseif strategy == 'l' then
    while true do
      local oldest = redis.call('LINDEX', key, 0)
      if not oldest then break end
      local s, n = pair(oldest)
      s, n = plus(s, n, q, r)
      if before(now_s, now_n, s, n) then break end
      redis.call('LPOP', key)
    end
    state.live = redis.call('LLEN', key)
    fits = fits and state.live + cost <= p
  else
    local s, n = pair(redis.call('GET', key) or '0:0')
    if before(s, n, now_s, now_n) then s, n = now_s, now_n end
    state.s, state.n = s, n
    state.next_s, state.next_n = plus(s, n, p, q)
    local ahead_s, ahead_n = plus(now_s, now_n, r, t)
    fits = fits and not before(ahead_s, ahead_n, state.next_s, state.next_n)
  end
  states[i] = state
end

local charge = force or fits
if charge then reply[1] = 1 end
for i, key in ipairs(KEYS) do
  local a = 7 + (i - 1) * 4
  local p, q, r, t = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2]), tonumber(ARGV[a + 3])
  local state = states[i]
  if strategy == 'f' then
    if charge and cost > 0 then
      state.used = state.used + cost
      redis.call('SET', key, string.format('%.0f', state.used), 'PX', q)
    end
    reply[#reply + 1] = state.used
  elseif strategy == 'c' then
    if (charge or penalty) and cost > 0 then
      state.c = math.min(state.c + cost, p * 16)
      redis.call('HSET', key, 'n', string.format('%.0f', state.n), 'p', string.format('%.0f', state.p), 'c', string.format('%.0f', state.c))
      redis.call('PEXPIRE', key, t)
    end
    reply[#reply + 1] = state.p
    reply[#reply + 1] = state.c
  elseif strategy == 'l' then
    local wanted = cost
    if charge and cost > 0 then
      for _ = 1, cost do redis.call('RPUSH', key, text(now_s, now_n)) end
      redis.call('PEXPIRE', key, t)
      state.live = state.live + cost
      wanted = 1
    end
    local over = math.max(state.live + wanted - p, 1)
    local leaves = redis.call('LINDEX', key, over - 1)
    local s, n = now_s, now_n
    if leaves then
      s, n = pair(leaves)
      s, n = plus(s, n, q, r)
    end
    reply[#reply + 1] = state.live
    reply[#reply + 1] = s
    reply[#reply + 1] = n
  else
    if charge and cost > 0 then
      state.s, state.n = state.next_s, state.next_n
      redis.call('SET', key, text(state.s, state.n), 'PX', (state.s - now_s) * 1000 + 10000)
    end
    reply[#reply + 1] = state.s
    reply[#reply + 1] = state.n
  end
end
return reply
