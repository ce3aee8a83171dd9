-- wrk -s wrk.lua URL -- FILE
-- Sends the requests in FILE in turn and prints one line of JSON. FILE has, for each request, its length, a newline
-- and its bytes.

local requests, turn = {}, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  local length = file:read("*n")
  while length do
    file:read(1)
    requests[#requests + 1] = file:read(length)
    length = file:read("*n")
  end
  file:close()
  turn = #requests - 1 -- wrk discards the first request that it asks for: make that the last one in FILE
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  io.write(('{"requests":%d,"seconds":%f,"errors":%d,"p50_ms":%f,"p99_ms":%f,"p999_ms":%f}\n'):format(
    summary.requests,
    summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3,
    latency:percentile(99.9) / 1e3
  ))
end
