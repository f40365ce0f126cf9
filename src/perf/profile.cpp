#include "ttt/perf/profile.h"

#include <algorithm>
#include <tuple>

namespace ttt::inline v2::perf {

namespace {

std::int64_t nanoseconds(std::chrono::steady_clock::duration d) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(d).count();
}

// "layers.3.attn.qkv" of layer 3: "attn.qkv".
std::string_view without_layer(std::string_view module, int layer) {
  const std::string prefix = "layers." + std::to_string(layer) + ".";
  return layer >= 0 && module.starts_with(prefix) ? module.substr(prefix.size()) : module;
}

void sort_by_time(std::vector<Share>& shares) {
  std::ranges::stable_sort(shares, std::ranges::greater{}, &Share::seconds);
}

}  // namespace

Profile::Profile()
    : origin_(std::chrono::steady_clock::now()),
      zones_([this](const ZoneRecord& r) {
        const std::lock_guard lock(mutex_);
        spans_.push_back({.name = intern(r.name),
                          .kind = r.kind,
                          .layer = r.layer,
                          .begin = nanoseconds(r.begin - origin_),
                          .end = nanoseconds(r.end - origin_),
                          .bytes = r.bytes,
                          .flops = r.flops});
      }),
      counters_([this](const CounterRecord& r) {
        const std::lock_guard lock(mutex_);
        samples_.push_back({.name = intern(r.name), .time = nanoseconds(r.time - origin_), .value = r.value});
      }) {}

std::uint32_t Profile::intern(std::string_view name) {
  if (const auto known = ids_.find(name); known != ids_.end()) return known->second;
  const auto id = static_cast<std::uint32_t>(names_.size());
  names_.emplace_back(name);
  ids_.emplace(name, id);
  return id;
}

void Profile::clear() {
  const std::lock_guard lock(mutex_);
  spans_.clear(), samples_.clear();
  origin_ = std::chrono::steady_clock::now();
}

std::string Profile::name(std::uint32_t id) const {
  const std::lock_guard lock(mutex_);
  return names_.at(id);
}

std::vector<Sample> Profile::samples() const {
  const std::lock_guard lock(mutex_);
  return samples_;
}

std::vector<Span> Profile::spans() const {
  std::vector<Span> spans;
  {
    const std::lock_guard lock(mutex_);
    spans.assign(spans_.rbegin(), spans_.rend());  // what encloses ends later: it comes first of equal ones
  }
  std::ranges::stable_sort(spans, [](const Span& a, const Span& b) {
    return std::tie(a.begin, b.end) < std::tie(b.begin, a.end);
  });
  std::vector<std::int32_t> open;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    while (!open.empty() && spans[static_cast<std::size_t>(open.back())].end < spans[i].end) open.pop_back();
    if (!open.empty()) spans[i].parent = open.back();
    open.push_back(static_cast<std::int32_t>(i));
  }
  return spans;
}

std::vector<Share> Profile::shares() const {
  const std::vector<Span> all = spans();
  const std::vector<std::string> names = [this] {
    const std::lock_guard lock(mutex_);
    return names_;
  }();
  const auto of = [&](std::int32_t i) -> const Span& { return all[static_cast<std::size_t>(i)]; };
  std::map<std::tuple<int, std::string, std::string>, Share> found;
  double total = 0, in_ops = 0;
  const bool steps = std::ranges::any_of(all, [](const Span& s) { return s.kind == ZoneKind::step; });
  for (const Span& span : all) {
    const double seconds = static_cast<double>(span.end - span.begin) * 1e-9;
    if (steps ? span.kind == ZoneKind::step : span.parent < 0) total += seconds;
    if (span.kind != ZoneKind::op) continue;
    std::string_view module;
    int layer = -1;
    bool inner = false, in_step = !steps;
    for (std::int32_t p = span.parent; p >= 0; p = of(p).parent) {
      inner = inner || of(p).kind == ZoneKind::op;
      in_step = in_step || of(p).kind == ZoneKind::step;
      if (of(p).kind == ZoneKind::module && module.empty())
        module = without_layer(names[of(p).name], of(p).layer);
      if (layer < 0) layer = of(p).layer;
    }
    if (inner || !in_step) continue;
    const std::string& op = names[span.name];
    Share& share = found[{layer, std::string(module), op}];
    share.module = module, share.op = op, share.layer = layer;
    ++share.calls;
    share.seconds += seconds, share.bytes += span.bytes, share.flops += span.flops;
    in_ops += seconds;
  }
  std::vector<Share> shares;
  for (auto& [key, share] : found) shares.push_back(std::move(share));
  if (total > in_ops) shares.push_back({.module = "", .op = "", .seconds = total - in_ops});
  sort_by_time(shares);
  return shares;
}

std::vector<Share> group(const std::vector<Share>& shares, GroupBy by) {
  std::map<std::tuple<int, std::string, std::string>, Share> found;
  for (const Share& s : shares) {
    const bool all = by == GroupBy::all, both = all || by == GroupBy::module_and_op;
    const bool module = both || by == GroupBy::module, op = both || by == GroupBy::op;
    Share key{.module = module ? s.module : "",
              .op = op ? s.op : "",
              .layer = all || by == GroupBy::layer ? s.layer : -1};
    Share& sum = found.emplace(std::tuple(key.layer, key.module, key.op), key).first->second;
    sum.calls += s.calls, sum.seconds += s.seconds, sum.bytes += s.bytes, sum.flops += s.flops;
  }
  std::vector<Share> groups;
  for (auto& [key, share] : found) groups.push_back(std::move(share));
  sort_by_time(groups);
  return groups;
}

}  // namespace ttt::inline v2::perf
