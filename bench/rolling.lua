-- What wrk asks for in scripts/rolling: reads of a document, and of five requests one that creates another.
--   wrk ... -s bench/rolling.lua http://127.0.0.1:PORT -- TOKEN DOCUMENT [FILE]
-- Prints the outcome as a line of JSON, and the first answers that are no success. FILE gets the id of each document that was
-- acknowledged, and the code of each answer that is no success.
local path = "/api/v1/documents"
local body = '{"bucket":"scans","filename":"scan.pdf","content_type":"application/pdf","size_bytes":48213}'
local workers = {}

function setup(thread)
  workers[#workers + 1] = thread
end

function init(args)
  local headers = { Authorization = "Bearer " .. args[1], ["Content-Type"] = "application/json" }
  local read = wrk.format("GET", path .. "/" .. args[2], { Authorization = headers.Authorization })
  local create = wrk.format("POST", path, headers, body)
  local sent = 0
  created, refused, shown = 0, 0, 0
  file = args[3] and assert(io.open(args[3], "a"))
  request = function()
    sent = sent + 1
    return sent % 5 == 0 and create or read
  end
end

function response(status, _, text)
  if status == 201 then
    created = created + 1
    if file then file:write(text:match('"id":"([^"]+)"'), "\n") end
  elseif status ~= 200 then
    refused = refused + 1
    if file then file:write("refused ", status, " ", text:match('"code":"([^"]+)"') or "of the proxy", "\n") end
    if shown < 3 then
      shown = shown + 1
      io.stderr:write(string.format("an answer is %d: %s\n", status, text:sub(1, 300)))
    end
  end
end

function done(summary, latency)
  local made, other = 0, 0
  for _, thread in ipairs(workers) do
    made, other = made + thread:get("created"), other + thread:get("refused")
  end
  local errors = summary.errors
  io.write(string.format(
    'outcome {"requests":%d,"created":%d,"refused":%d,"connect":%d,"read":%d,"write":%d,"timeout":%d,"rate":%.0f,"p50_ms":%.1f,"p99_ms":%.1f}\n',
    summary.requests, made, other, errors.connect, errors.read, errors.write, errors.timeout,
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3))
end
