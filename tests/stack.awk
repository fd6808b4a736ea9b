# stack.awk: the largest frame and the deepest path, in bytes, from gcc's -fcallgraph-info=su.
# Usage: awk -f tests/stack.awk longctx.h FILE.ci
# A call through a pointer is one of a kernel, whose name stands in the header at the line and column
# that gcc gives; it counts as the deepest of that name. libc counts nothing.

FNR == NR { line_of[FNR] = $0; next }                  # the header

function field(line, name) {
  sub(".*" name ": \"", "", line)
  sub("\".*", "", line)
  sub(".*:", "", line)
  return line
}

/^node:.*bytes \(/ {
  name = field($0, "title")
  bytes = $0
  sub(" bytes \\(.*", "", bytes)
  sub(".*n", "", bytes)                                # behind the last \n
  frame[name] = bytes + 0
  if (/\(dynamic\)/) dynamic = dynamic " " name
}

/^edge:/ {
  from = field($0, "sourcename")
  to = field($0, "targetname")
  if (to == "__indirect_call") to = "->" kernel_at($0)
  calls[from] = calls[from] " " to
}

# name, of the edge's call kernel->name(...)
function kernel_at(edge,    at, text) {
  sub(".*longctx.h:", "", edge)
  split(edge, at, "[:\"]")
  text = substr(line_of[at[1]], at[2])
  if (!match(text, "->[a-z0-9_]+\\(")) { print "no kernel's name: " text; failed = 1; return "" }
  return substr(text, RSTART + 2, RLENGTH - 3)
}

function is_kernel(f, name) {
  return f ~ "^lcx_" name "(_(F32|F16|Q8)_[0-9])?_(scalar|scalar_fma|sse2|avx2|avx512|neon|wasm)(\\..*)?$"
}

# the deepest path from f on, f included; what it goes through in way[f]
function depth(f,    n, i, part, g, d, most, best) {
  if (f in deep) return deep[f]
  if (f in open) { print "recursion: " f; failed = 1; return 0 }
  open[f] = 1
  most = 0
  n = split(calls[f], part, " ")
  for (i = 1; i <= n; i++) {
    if (sub("^->", "", part[i])) {
      for (g in frame)
        if (is_kernel(g, part[i])) {
          d = depth(g)
          if (d > most) { most = d; best = g }
        }
    } else if (part[i] in frame) {
      d = depth(part[i])
      if (d > most) { most = d; best = part[i] }
    }
  }
  delete open[f]
  way[f] = best ? f " > " way[best] : f
  deep[f] = frame[f] + most
  return deep[f]
}

END {
  for (f in frame) {
    if (frame[f] > widest) { widest = frame[f]; widest_name = f }
    if (f ~ /^longctx_/ && depth(f) > deepest) { deepest = depth(f); deepest_name = f }
    if (frame[f] > 512) above = above " " f " " frame[f]
  }
  if (dynamic) { print "frames of no fixed size:" dynamic; failed = 1 }
  print "above 512:" (above ? above : " none")
  print "deepest path: " way[deepest_name]
  printf "largest frame %d, deepest path %d bytes\n", widest, deepest
  exit failed
}
