-- wrk -s replay.lua URL -- FILE SEED
-- Sends the requests in FILE in order, beginning at a random one. workload.py has chosen and encoded them before, so a
-- request costs wrk one table look-up, whatever the protocol of the server.
-- FILE has for each request its length in bytes in decimal digits, a line feed, and the request.

local requests, count, position = {}, 0, 0
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  local file = assert(io.open(args[1], "rb"))
  while true do
    local length = file:read("*n")
    if not length then break end
    file:read(1) -- the line feed
    count = count + 1
    requests[count] = file:read(length)
  end
  file:close()
  math.randomseed(tonumber(args[2]))
  position = math.random(count)
  cpu_seconds_at_start = os.clock() -- global, so that done() can read it; of the whole process
end

function request()
  position = position % count + 1
  return requests[position]
end

-- There is no response() function, because it would cost time for each answer. wrk itself counts statuses above 399.

function done(summary, latency, _)
  local errors = summary.errors
  local cpu_seconds = os.clock() - threads[1]:get("cpu_seconds_at_start")
  io.write(string.format(
    'RESULT {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, "cpu_seconds": %.4f, "errors": '
      .. '{"connect": %d, "read": %d, "write": %d, "status": %d, "timeout": %d}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    cpu_seconds,
    errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
