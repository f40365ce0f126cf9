// A chat in forty lines: load a checkpoint, keep the conversation, stream the answers.
//
//   demo_chat MODEL        lines from standard input are the user's
#include <iostream>
#include <string>

#include "ttt/convert/load.h"
#include "ttt/runtime/chat.h"

int main(int count, char** arguments) {
  if (count != 2) {
    std::cerr << "usage: demo_chat MODEL\n";
    return 1;
  }
  try {
    // Everything about the network comes from the checkpoint and the installed model libraries.
    ttt::LoadedModel loaded = ttt::load(arguments[1]);
    if (!loaded.tokenizer || !loaded.chat_template) {
      std::cerr << "error: the checkpoint has no tokenizer or no chat template, " << arguments[1]
                << ", choose one for chat\n";
      return 1;
    }
    ttt::Generator generator(*loaded.model, &*loaded.tokenizer, {.max_batch = 1});
    ttt::ChatSession chat(
        generator, *loaded.chat_template,
        {.eos_token_ids = loaded.generation.eos_ids,
         .sampling = {.temperature = 0.7f, .top_p = 0.9f, .seed = 1, .max_new_tokens = 200}});
    chat.set_system("You are a helpful assistant. Answer briefly.");

    std::cout << "> " << std::flush;
    for (std::string line; std::getline(std::cin, line); std::cout << "> " << std::flush) {
      const ttt::GenerationResult result =
          chat.send(line, [](std::string_view text) { std::cout << text << std::flush; });
      std::cout << "\n[" << result.ids.size() << " tokens, " << result.timings.tokens_per_second()
                << " per second]\n";
    }
    std::cout << "\n";
    return 0;
  } catch (const ttt::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
