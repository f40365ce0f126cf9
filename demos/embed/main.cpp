// An application that embeds the library: it knows Completer and nothing of models, tensors or tokens. Two
// texts are completed at the same time while this thread is free for other work.
//
//   demo_embed MODEL PROMPT [PROMPT]
#include <iostream>

#include "completer.h"

int main(int count, char** arguments) {
  if (count < 3) {
    std::cerr << "usage: demo_embed MODEL PROMPT [PROMPT]\n";
    return 1;
  }
  try {
    std::size_t pieces = 0;
    Completer completer(arguments[1]);
    std::cout << completer.description() << "\n";
    std::future<std::string> first =
        completer.complete(arguments[2], 16, [&pieces](const std::string&) { ++pieces; });
    std::future<std::string> second = completer.complete(count > 3 ? arguments[3] : arguments[2], 8);
    std::cout << arguments[2] << first.get() << " (in " << pieces << " pieces)\n";
    std::cout << (count > 3 ? arguments[3] : arguments[2]) << second.get() << "\n";
    return 0;
  } catch (const std::exception& error) {  // ttt::Error is one
    std::cerr << "error: " << error.what() << "\n";
    return 1;
  }
}
