// Many prompts at once: requests of different lengths share each step, join and leave as they come and end.
//
//   demo_batch MODEL [PROMPT...]
#include <iomanip>
#include <iostream>
#include <string>
#include <vector>

#include "ttt/convert/load.h"
#include "ttt/runtime/generator.h"

int main(int count, char** arguments) {
  if (count < 2) {
    std::cerr << "usage: demo_batch MODEL [PROMPT...]\n";
    return 1;
  }
  std::vector<std::string> prompts(arguments + 2, arguments + count);
  if (prompts.empty())
    prompts = {"The capital of France is", "Water boils at", "One, two, three,", "The opposite of hot is"};
  try {
    ttt::LoadedModel loaded = ttt::load(arguments[1]);
    if (!loaded.tokenizer) {
      std::cerr << "error: the checkpoint has no tokenizer, " << arguments[1] << ", add a tokenizer.json\n";
      return 1;
    }
    ttt::Generator generator(*loaded.model, &*loaded.tokenizer, {.max_batch = 8});

    // Each request has its own sampling: here the even ones are greedy, the odd ones draw with their own
    // seed.
    std::vector<ttt::GenerationRequest> requests;
    for (std::size_t i = 0; i < prompts.size(); ++i)
      requests.push_back(
          {.prompt = prompts[i],
           .sampling = {.temperature = i % 2 == 0 ? 0.0f : 0.8f, .seed = i, .max_new_tokens = 24}});
    const std::vector<ttt::GenerationResult> results = generator.generate(requests);

    for (std::size_t i = 0; i < results.size(); ++i)
      std::cout << std::quoted(prompts[i]) << "\n  " << std::quoted(results[i].text) << " ("
                << ttt::name(results[i].finish_reason) << ")\n";
    const ttt::GeneratorStats stats = generator.stats();
    std::cout << stats.generated_tokens << " tokens for " << results.size() << " requests in " << stats.steps
              << " steps\n";
    return 0;
  } catch (const ttt::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
