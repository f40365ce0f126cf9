// What construction and loading throw. One line that a user can act on: what, where, what to change.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace ttt::inline v2 {

class Error : public std::runtime_error {
 public:
  // `what`: what is wrong; `where`: file, tensor, field (may be empty); `fix`: what to change (may be empty).
  // what() reads "what, where, fix" with the empty parts left out. Untrusted text must pass through
  // printable() first.
  explicit Error(std::string_view what, std::string_view where = {}, std::string_view fix = {});

  const std::string& problem() const { return problem_; }
  const std::string& where() const { return where_; }
  const std::string& fix() const { return fix_; }

 private:
  std::string problem_, where_, fix_;
};

// `text` as it may stand in a message: control characters and invalid UTF-8 escaped as \xNN, cut to `limit`
// bytes.
std::string printable(std::string_view text, std::size_t limit = 80);

// The candidate nearest to `name` by edit distance, or "" when none is near enough to be a likely typing
// mistake.
template <class Range>
std::string nearest(std::string_view name, const Range& candidates);

namespace detail {
std::size_t edit_distance(std::string_view a, std::string_view b, std::size_t limit);
}

template <class Range>
std::string nearest(std::string_view name, const Range& candidates) {
  std::string best;
  std::size_t best_distance = name.size() / 2 + 1;
  for (const auto& candidate : candidates) {
    const std::size_t distance = detail::edit_distance(name, candidate, best_distance);
    if (distance < best_distance) {
      best_distance = distance;
      best = std::string(candidate);
    }
  }
  return best;
}

}  // namespace ttt::inline v2
