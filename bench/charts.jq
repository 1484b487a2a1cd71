# The charts of a part of scripts/bench's results, one a line, as bench/contenders/src/bin/charts.rs draws them.
include "statistics";

def name: {bulkhead: "Bulkhead", ceiling: "ceiling", plain: "axum and sqlx", fastapi: "FastAPI"}[.];

# Bars of a measure: a group for each operation.
def bars($all; $operations; $connections; measure):
  [("bulkhead", "ceiling", "plain", "fastapi") as $contender |
    {name: ($contender | name), points: [range($operations | length) as $place |
      ($all | of($operations[$place]; $connections; null) | medians($contender)) | select(. != null) | [$place, measure]]} |
    select(.points != [])];

# A line of rates for each contender.
def lines($all; $what):
  [("bulkhead", "ceiling") as $contender |
    {name: ($contender | name), points: [($all | map(select(.what == $what) | .x) | unique[]) as $x |
      ($all | map(select(.what == $what and .x == $x)) | medians($contender)) | select(. != null) | [$x, .rate]]} |
    select(.points != [])];

.results as $all |
if $part == "compare" then
  ["read", "list", "create", "mixed"] as $what |
  {file: "rates", title: "Requests a second at 32 connections", x: "", y: "requests/s", groups: $what, series: bars($all; $what; 32; .rate)},
  {file: "latency", title: "Half of the requests at 32 connections are answered within", x: "", y: "ms", groups: $what,
    series: bars($all; $what; 32; .p50_ms)}
elif $part == "appends" then
  {file: "appends", title: "Audited reads a second", x: "connections", y: "entries/s", series:
    [("bulkhead", "ceiling") as $contender | ("one", "many") as $what |
      {name: "\($contender | name), \(if $what == "one" then "one tenant" else "100 tenants" end)",
       points: [($all | map(.connections) | unique[]) as $c | ($all | of($what; $c; null) | medians($contender)) | [$c, .rate]]}]}
elif $part == "scaling" then
  ({connections: "connections", pool: "connections to the database, with 64 clients", rows: "documents of the tenant, with 32 connections",
    tenants: "tenants, with 32 connections", replicas: "processes, with 64 connections"} | to_entries[]) as {key: $what, value: $x} |
  {file: $what, title: "Reads a second", $x, y: "requests/s", series:
    (lines($all; $what) + if $what == "rows" then [lines($all; "list")[] | .name += ", list of 50"] else [] end)}
else empty end
