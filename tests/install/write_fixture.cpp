// write_fixture FIXTURE.json FOLDER: the checkpoint that the fixture describes.
#include <cstdio>

#include "ttt/base/error.h"
#include "ttt/testing/fixture.h"

int main(int count, char** arguments) {
  if (count != 3) {
    std::fputs("error: two arguments wanted, write_fixture, give FIXTURE.json and FOLDER\n", stderr);
    return 1;
  }
  try {
    ttt::testing::write_fixture(arguments[1], arguments[2]);
    return 0;
  } catch (const ttt::Error& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 1;
  }
}
