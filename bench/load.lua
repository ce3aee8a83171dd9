-- Load for wrk: one key after the other, the requests made before it begins; at the end one line of JSON.
-- wrk -s load.lua URL -- kvstore|etcd put|get KEYS VALUE_BYTES

local VALUE, encoded_value
local ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"

local function base64(text)
  local encoded = text:gsub("..?.?", function(bytes)
    local a, b, c = bytes:byte(1, 3)
    local bits = a * 65536 + (b or 0) * 256 + (c or 0)
    local letters = ""
    for shift = 18, 0, -6 do
      local index = math.floor(bits / 2 ^ shift) % 64 + 1
      letters = letters .. ALPHABET:sub(index, index)
    end
    return letters:sub(1, #bytes + 1) .. ("="):rep(3 - #bytes)
  end)
  return encoded
end

local function etcd(call, fields)
  return wrk.format("POST", "/v3/kv/" .. call, { ["Content-Type"] = "application/json" }, fields)
end

local makers = {
  kvstore = {
    put = function(key) return wrk.format("PUT", "/kv/" .. key, nil, VALUE) end,
    get = function(key) return wrk.format("GET", "/kv/" .. key) end,
  },
  etcd = {
    put = function(key) return etcd("put", ('{"key":"%s","value":"%s"}'):format(base64(key), encoded_value)) end,
    get = function(key) return etcd("range", ('{"key":"%s"}'):format(base64(key))) end,
  },
}

local requests, turn

function init(arguments)
  VALUE = ("v"):rep(tonumber(arguments[4]))
  encoded_value = base64(VALUE)
  local make = makers[arguments[1]][arguments[2]]
  requests = {}
  for number = 1, tonumber(arguments[3]) do
    requests[number] = make(("key-%05d"):format(number))
  end
  turn = #requests - 1 -- wrk asks for one request and throws it away: let that be the last
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
