# The tables of a part of scripts/bench's results, in Markdown.
include "statistics";

def short: if . == null then "" elif . < 10 then "\(. * 100 | round / 100)" elif . < 100 then "\(. * 10 | round / 10)" else "\(round)" end;
def row: "| \(join(" | ")) |";
def table($head): [$head, ($head | map("---")) | row] + map(row) | join("\n");
def names: {bulkhead: "Bulkhead", ceiling: "ceiling", plain: "plain", fastapi: "FastAPI", bare: "bare"};

# Requests a second, and in parentheses the p50 and the p99 in milliseconds.
def cell: if . == null then "" else "\(.rate | short) (\(.p50_ms | short), \(.p99_ms | short))" end;
# A ratio, unless its rounds scatter too much.
def said($bound):
  if . == null then "" elif .scatter > $bound then "none: rounds scatter by \(.scatter * 100 | round) %"
  else "\(.ratio * 100 | round / 100)" end;

def where: .context as $c |
  "\($c.cores) cores of \($c.cpu), \($c.memory_gb) GB, \($c.system); PostgreSQL \($c.postgres), Rust \($c.rust), " +
  "Python \($c.python) with FastAPI \($c.fastapi); revision \($c.commit), \($c.date). " +
  "Rounds of \($c.seconds) s, \($c.rounds) to \($c.rounds_max) of them. " +
  (if $c.sync_us == "" then "How long an fsync takes was not measured." else "An fsync takes \($c.sync_us | tonumber | round) µs here." end);

def operations: ["live", "ready", "read", "list", "create", "mixed"];
def levels: map(.connections) | unique;

def compare: .results as $all |
  [operations[] as $what | ($all | map(select(.what == $what)) | levels[]) as $c |
    ($all | of($what; $c; null)) as $here |
    [$what, "\($c)", (("bulkhead", "ceiling", "plain", "fastapi") as $name | $here | medians($name) | cell)]
  ] | table(["operation", "connections", "Bulkhead", "ceiling", "plain", "FastAPI"]);

def compare_ratios: .context.bound as $bound | .results as $all |
  [operations[] as $what | ($all | map(select(.what == $what)) | levels[]) as $c |
    ($all | of($what; $c; null)) as $here |
    [$what, "\($c)", (("ceiling", "plain", "fastapi", "bare") as $name | $here | ratio("bulkhead"; $name) | said($bound))]
  ] | table(["Bulkhead's rate as a ratio to that of", "connections", "ceiling", "plain", "FastAPI", "bare"]);

def memory: .results as $all | .idle as $idle |
  [("bulkhead", "ceiling", "plain", "fastapi") as $name |
    [names[$name], ($idle | map(select(.contender == $name) | .rss_mb) | median | short),
      ($all | map(select(.contender == $name) | .rss_mb) | max | short)]
  ] | table(["memory", "idle, MB", "most under load, MB"]);

# A goal: what is measured, what it should be, and by how much it is missed.
def goal($text; $least; $ratio; $bound):
  [$text, "at least \($least)", ($ratio | said($bound)),
    (if $ratio == null then "not measured" elif $ratio.scatter > $bound then "unknown" elif $ratio.ratio >= $least then "met"
     else "missed by \(($least - $ratio.ratio) / $least * 100 | round) %" end)];
def goals: .context.bound as $bound | .results as $all |
  [ (["live", "bare", 0.9], ["read", "ceiling", 0.85], ["list", "ceiling", 0.85], ["create", "ceiling", 0.7],
     ["mixed", "ceiling", 0.7], ["read", "fastapi", 20], ["live", "fastapi", 60]) as [$what, $base, $least] |
    ($all | map(select(.what == $what)) | levels[]) as $c |
    goal("\($what) at \($c), to \(names[$base])"; if $c == 1 and $least == 0.85 then 0.6 else $least end;
      $all | of($what; $c; null) | ratio("bulkhead"; $base); $bound)
  ] | table(["goal", "wanted", "measured", "outcome"]);

def appends: .context.bound as $bound | .results as $all |
  [("one", "many") as $what | ($all | levels[]) as $c | ($all | of($what; $c; null)) as $here |
    [if $what == "one" then "one" else "100" end, "\($c)", (("bulkhead", "ceiling", "plain") as $name | $here | medians($name) | cell),
      ($here | ratio("bulkhead"; "ceiling") | said($bound))]
  ] | table(["tenants", "connections", "Bulkhead", "ceiling", "plain", "Bulkhead to ceiling"]);

def distance: .results as $all | .trips as $trips | .context.bound as $bound |
  [($trips[]) as $trip | ("read", "create") as $what | ($all | levels[]) as $c |
    ($all | of($what; $c; $trip.delay_ms * 1000)) as $here |
    (5 * $trip.trip_ms + 2) as $most | ($here | medians("bulkhead").p50_ms) as $p50 |
    ["\($trip.delay_ms) ms", ($trip.trip_ms | short), $what, "\($c)",
      (("bulkhead", "ceiling", "plain", "fastapi") as $name | $here | medians($name) | cell),
      if $what == "read" then "\($most | short) ms: " + (if $p50 <= $most then "met" else "missed by \($p50 - $most | short) ms" end) else "" end]
  ] | table(["delay each way", "round trip, ms", "operation", "connections", "Bulkhead", "ceiling", "plain", "FastAPI", "p50 wanted"]);

def scaling: .results as $all |
  [(["connections", "connections"], ["pool", "connections to the database, 64 clients"], ["rows", "rows, read at 32 connections"],
    ["list", "rows, list at 32 connections"], ["tenants", "tenants, 32 connections"], ["replicas", "processes, 64 connections"]) as [$what, $text] |
    ($all | map(select(.what == $what) | .x) | unique[]) as $x | ($all | map(select(.what == $what and .x == $x))) as $here |
    [$text, "\($x)", ($here | medians("bulkhead") | cell), ($here | medians("ceiling") | cell)]
  ] | table(["against", "", "Bulkhead", "ceiling"]);

def profile:
  [.results[] | [names[.contender], "\(.connections)", (.rate | short), (.api_us | short), (.postgres_us | short)]]
  | table(["server", "connections", "reads/s", "server, µs a read", "PostgreSQL, µs a read"]);

def chart($file; $text):
  "<picture><source media=\"(prefers-color-scheme: dark)\" srcset=\"performance/\($file)-dark.svg\"><img alt=\"\($text)\" " +
  "src=\"performance/\($file)-light.svg\"></picture>";

if $part == "compare" then
  where, "", compare, "", compare_ratios, "", memory, "", goals, "",
  chart("rates"; "Requests a second at 32 connections"), "", chart("latency"; "Half of the requests are answered within this time")
elif $part == "appends" then where, "", appends, "", chart("appends"; "Audited reads a second")
elif $part == "distance" then where, "", distance
elif $part == "profile" then
  "Revision \(.context.commit), \(.context.date): one run of 5 s each.", "", profile, "",
  "[Where a read spends the API's time](performance/read.svg), as a flame graph: open it by itself, then a click zooms in."
else
  where, "", scaling, "", (("connections", "pool", "rows", "tenants", "replicas") as $what | chart($what; "Reads a second against \($what)"))
end
