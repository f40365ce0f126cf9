// A program in a folder of its own that knows nothing but the installed package.
#include <iostream>

#include "ttt/convert/load.h"
#include "ttt/runtime/generator.h"

int main(int count, char** arguments) {
  if (count != 3) return 2;
  try {
    ttt::LoadedModel loaded = ttt::load(arguments[1], {.precision = "f32", .cache = ""});
    ttt::Generator generator(*loaded.model, &*loaded.tokenizer);
    std::cout << generator.generate({.prompt = arguments[2], .sampling = {.max_new_tokens = 8}}).text << "\n";
  } catch (const ttt::Error& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
