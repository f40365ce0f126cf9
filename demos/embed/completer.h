// What an application wants of a language model, in the application's own words. The library stays behind
// this header.
#pragma once

#include <functional>
#include <future>
#include <memory>
#include <string>

class Completer {
 public:
  explicit Completer(const std::string& model_path);
  ~Completer();

  // Returns at once; `on_text` is called from the worker's thread as the text is written, the future gets all
  // of it.
  std::future<std::string> complete(std::string prompt, int max_tokens,
                                    std::function<void(const std::string&)> on_text = {});
  std::string description() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};
