# stack.awk: the largest frame and the deepest path, in bytes, from gcc's -fcallgraph-info=su.
# Usage: awk -f tests/stack.awk FILE.ci
# A kernel's table holds register tiles (lcx_qk_F32_..., lcx_pv_...); every other call through a
# pointer is one of a kernel. Both count as the deepest of their kind. libc counts nothing.

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
  calls[from] = calls[from] " " field($0, "targetname")
}

function is_kernel(f) { return f ~ /_(scalar|scalar_fma|sse2|avx2|avx512|neon|wasm)(\..*)?$/ }
function is_tile(f) { return f ~ /^lcx_(qk|pv)_[A-Z]/ }

# the deepest path from f on, f included; what it goes through in way[f]
function depth(f,    n, i, part, g, d, most, best) {
  if (f in deep) return deep[f]
  if (f in open) { print "recursion: " f; failed = 1; return 0 }
  open[f] = 1
  most = 0
  n = split(calls[f], part, " ")
  for (i = 1; i <= n; i++) {
    if (part[i] == "__indirect_call") {
      for (g in frame)
        if (is_kernel(f) ? is_tile(g) : is_kernel(g) && !is_tile(g)) {
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
