#include "completer.h"

#include <thread>

#include "ttt/convert/load.h"
#include "ttt/runtime/generator.h"

struct Completer::State {
  explicit State(const std::string& path) : loaded(ttt::load(path)) {
    if (!loaded.tokenizer) throw ttt::Error("no tokenizer", path, "add a tokenizer.json");
    generator.emplace(*loaded.model, &*loaded.tokenizer, ttt::GeneratorOptions{.max_batch = 4});
    worker = std::jthread([this](const std::stop_token& stop) { generator->run(stop); });
  }

  ttt::LoadedModel loaded;
  std::optional<ttt::Generator> generator;
  std::jthread worker;  // last: it ends before what it uses
};

Completer::Completer(const std::string& model_path) : state_(std::make_unique<State>(model_path)) {}
Completer::~Completer() = default;

std::future<std::string> Completer::complete(std::string prompt, int max_tokens,
                                             std::function<void(const std::string&)> on_text) {
  auto promise = std::make_shared<std::promise<std::string>>();
  ttt::GenerationRequest request{.prompt = std::move(prompt), .sampling = {.max_new_tokens = max_tokens}};
  if (on_text)
    request.on_delta = [on_text = std::move(on_text)](const ttt::GenerationDelta& delta) {
      on_text(std::string(delta.text));
    };
  request.on_finish = [promise](ttt::GenerationResult&& result) {
    if (result.finish_reason == ttt::FinishReason::error)
      promise->set_exception(std::make_exception_ptr(std::runtime_error(result.error)));
    else
      promise->set_value(std::move(result.text));
  };
  state_->generator->submit(std::move(request));
  return promise->get_future();
}

std::string Completer::description() const {
  return state_->loaded.family + " on " + state_->loaded.device->description();
}
