# Statistics of scripts/bench's results: objects of one measurement each.

# The measurements of one operation at one number of connections and one x of a chart.
def of($what; $connections; $x): map(select(.what == $what and .connections == $connections and .x == $x));

# A quantile by linear interpolation; null of nothing.
def quantile($part):
  sort as $sorted | ((length - 1) * $part) as $place | ($place | floor) as $low |
  if length == 0 then null
  elif $low + 1 < length then $sorted[$low] + ($sorted[$low + 1] - $sorted[$low]) * ($place - $low)
  else $sorted[$low] end;
def median: quantile(0.5);

# The ratios of two contenders' rates, round by round.
def ratios($contender; $base):
  (map(select(.contender == $base) | {key: "\(.round)", value: .rate}) | from_entries) as $bases |
  map(select(.contender == $contender and $bases["\(.round)"]) | .rate / $bases["\(.round)"]);

# How far the middle half of the rounds lies apart, as a part of their median.
def scatter: if length < 2 then 0 else (quantile(0.75) - quantile(0.25)) / median end;

# The largest scatter of Bulkhead's ratios to the others.
def worst_scatter:
  . as $all | [map(.contender) | unique[] | select(. != "bulkhead") as $name | $all | ratios("bulkhead"; $name) | scatter] | max // 0;

# A ratio with what is needed to judge it; null where there is none.
def ratio($contender; $base):
  ratios($contender; $base) | if length == 0 then null else {ratio: median, scatter: scatter, rounds: length} end;

# The medians of a contender's rounds; null where there are none.
def medians($contender):
  map(select(.contender == $contender)) |
  if length == 0 then null
  else {rate: (map(.rate) | median), p50_ms: (map(.p50_ms) | median), p99_ms: (map(.p99_ms) | median), rss_mb: (map(.rss_mb) | max)} end;
