// What runs a pattern.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/pattern.h"

namespace ttt::inline v2::text {

class Pattern::Engine {
 public:
  Engine() = default;
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;
  virtual ~Engine() = default;
  virtual void find_all(std::string_view text, std::vector<Span>& matches) const = 0;
  virtual bool hand_written() const { return true; }
};

// The hand-written scanner of a pattern that widespread tokenizers use; null for any other.
std::unique_ptr<const Pattern::Engine> make_word_engine(std::string_view pattern);
// Throws Error with `where` when PCRE2 does not understand the pattern.
std::unique_ptr<const Pattern::Engine> make_pcre_engine(std::string_view pattern, Pattern::Syntax syntax,
                                                        const std::string& where);

}  // namespace ttt::inline v2::text
