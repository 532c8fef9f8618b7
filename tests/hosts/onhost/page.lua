-- What wrk asks of every answer: status 2xx, whole from HEAD to TAIL, and both of the same release.
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  pause, lines, bad, count_bad, first = tonumber(args[1]) or 0, {}, {}, 0, os.time()
end

function delay()
  return pause
end

local function spoilt(why, body)
  count_bad = count_bad + 1
  if #bad < 20 then
    table.insert(bad, os.time() .. " " .. why .. ": " .. string.gsub(string.sub(body, 1, 150), "%c", " "))
  end
end

function response(status, headers, body)
  if status < 200 or status > 299 then
    return spoilt("status " .. status, body)
  end
  local head = string.match(body, "^HEAD ([^\n]+)\n")
  local tail = string.match(body, "\nTAIL ([^\n]+)\n$")
  if not head or not tail then
    return spoilt("not whole", body)
  end
  lines[head] = (lines[head] or 0) + 1
  if head ~= tail then
    spoilt("mixed: " .. tail, body)
  end
end

local function quoted(text)
  return '"' .. string.gsub(text, '[%c"\\]', " ") .. '"'
end

function done(summary, latency, requests)
  local out, seen, faults, spoilt_ones = {}, {}, {}, 0
  for _, thread in ipairs(threads) do
    for line, count in pairs(thread:get("lines")) do
      seen[line] = (seen[line] or 0) + count
    end
    for _, why in ipairs(thread:get("bad")) do
      table.insert(faults, quoted(why))
    end
    spoilt_ones = spoilt_ones + thread:get("count_bad")
  end
  for line, count in pairs(seen) do
    table.insert(out, quoted(line) .. ": " .. count)
  end
  local e = summary.errors
  io.write(string.format(
    '\nREPORT {"requests": %d, "seconds": %.3f, "p50": %.3f, "p99": %.3f, "max": %.3f, "connect": %d, "read": %d, "write": %d, "timeout": %d, "spoilt": %d, "bad": [%s], "lines": {%s}}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000, latency.max / 1000,
    e.connect, e.read, e.write, e.timeout, spoilt_ones, table.concat(faults, ", "), table.concat(out, ", ")))
end
