-- What wrk asks for:
--   wrk ... -s bench/load.lua http://127.0.0.1:PORT -- live|ready|read|list|create|mixed|proof FILE
-- FILE has a line for each request that is sent in turn: a token and the id of one of its tenant's documents; of
-- proofs, a token and what is proved, such as sequence=17. Prints the outcome as a line of JSON.
local api = "/api/v1"
local body = '{"bucket":"scans","filename":"scan.pdf","content_type":"application/pdf","size_bytes":48213,"metadata":{"pages":3}}'

function init(args)
  local kind, requests = args[1], {}
  local function add(method, path, token, json)
    local headers = { Authorization = token and "Bearer " .. token, ["Content-Type"] = json and "application/json" }
    requests[#requests + 1] = wrk.format(method, api .. path, headers, json)
  end
  if kind == "live" or kind == "ready" then
    add("GET", "/health/" .. kind)
  else
    for line in io.lines(args[2]) do
      local token, id = line:match("^(%S+) (%S+)$")
      -- Of five requests of the mixed load one creates.
      if kind == "create" or kind == "mixed" and #requests % 5 == 4 then
        add("POST", "/documents", token, body)
      elseif kind == "list" then
        add("GET", "/documents?limit=50", token)
      elseif kind == "proof" then
        add("GET", "/audit-logs/proof?" .. id, token)
      else
        add("GET", "/documents/" .. id, token)
      end
    end
  end
  local next = 0
  request = function()
    next = next % #requests + 1
    return requests[next]
  end
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    'outcome {"requests":%d,"seconds":%.3f,"rate":%.1f,"p50_ms":%.3f,"p99_ms":%.3f,"errors":%d}\n',
    summary.requests, summary.duration / 1e6, summary.requests / summary.duration * 1e6,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    errors.connect + errors.read + errors.write + errors.timeout + errors.status))
end
