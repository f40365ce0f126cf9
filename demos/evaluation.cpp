// What a number format costs: perplexity of one text under several precisions, beside the bytes of the
// weights.
//
//   demo_evaluation MODEL TEXT_FILE [TOKENS]
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>

#include "ttt/convert/load.h"
#include "ttt/testing/evaluate.h"

int main(int count, char** arguments) {
  if (count < 3) {
    std::fputs("usage: demo_evaluation MODEL TEXT_FILE [TOKENS]\n", stderr);
    return 1;
  }
  std::ifstream file(arguments[2]);
  const std::string text{std::istreambuf_iterator<char>(file), {}};
  const std::size_t tokens = count > 3 ? std::strtoull(arguments[3], nullptr, 10) : 256;
  try {
    std::printf("%-12s %12s %12s\n", "precision", "perplexity", "weights MB");
    for (const std::string& precision : ttt::precision_names()) {
      const ttt::LoadedModel loaded = ttt::load(arguments[1], {.precision = precision});
      if (!loaded.tokenizer) throw ttt::Error("no tokenizer", arguments[1], "add a tokenizer.json");
      const auto result =
          ttt::testing::evaluate_perplexity(*loaded.model, *loaded.tokenizer, text, {.tokens = tokens});
      std::printf("%-12s %12.4f %12.2f\n", precision.c_str(), result.perplexity,
                  static_cast<double>(loaded.model->weight_bytes()) / 1e6);
    }
    return 0;
  } catch (const ttt::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
