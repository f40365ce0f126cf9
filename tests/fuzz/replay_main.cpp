// Runs a fuzzer's seeds, and a fixed sequence of mistakes made of them, without libFuzzer: any compiler and
// every test run has this much. usage: NAME_replay ROUNDS SEED_FILE...
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

using Bytes = std::vector<std::uint8_t>;
constexpr std::size_t most = 16384;  // bytes, as of the fuzzers

Bytes read(const char* path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    std::fprintf(stderr, "error: no such seed, %s\n", path);
    std::exit(1);
  }
  Bytes all{std::istreambuf_iterator<char>(file), {}};
  all.resize(std::min(all.size(), most));
  return all;
}

void spoil(Bytes& input, const std::vector<Bytes>& seeds, std::mt19937& random) {
  const auto below = [&](std::size_t n) { return n == 0 ? 0 : static_cast<std::size_t>(random()) % n; };
  const auto at = [&] { return input.begin() + static_cast<std::ptrdiff_t>(below(input.size())); };
  constexpr std::uint8_t telling[] = {0x00, 0x01, 0x7f, 0x80, 0xff, '0', '9', '-', '"', '{', '[', '%'};
  if (input.empty()) input.push_back(0);
  switch (below(7)) {
    case 0:
      *at() ^= static_cast<std::uint8_t>(1 << below(8));
      break;
    case 1:
      *at() = telling[below(std::size(telling))];
      break;
    case 2:
      input.insert(at(), telling[below(std::size(telling))]);
      break;
    case 3:
      input.erase(at());
      break;
    case 4:
      input.resize(below(input.size()));
      break;
    case 5: {  // eight bytes of ones: the largest size, offset or count
      const auto from = at();
      std::fill(from, from + std::min<std::ptrdiff_t>(8, input.end() - from), std::uint8_t{0xff});
      break;
    }
    default: {  // a piece of any seed
      const Bytes& other = seeds[below(seeds.size())];
      const std::size_t from = below(other.size()), count = below(other.size() - from);
      const auto piece = other.begin() + static_cast<std::ptrdiff_t>(from);
      input.insert(at(), piece, piece + static_cast<std::ptrdiff_t>(count));
      input.resize(std::min(input.size(), most));
    }
  }
}

}  // namespace

int main(int count, char** arguments) {
  if (count < 3) {
    std::fprintf(stderr, "usage: %s ROUNDS SEED_FILE...\n", arguments[0]);
    return 2;
  }
  std::vector<Bytes> seeds;
  for (int i = 2; i < count; ++i) seeds.push_back(read(arguments[i]));
  for (const Bytes& seed : seeds) LLVMFuzzerTestOneInput(seed.data(), seed.size());
  std::mt19937 random(1);
  const int rounds = std::atoi(arguments[1]);
  for (int round = 0; round < rounds; ++round) {
    Bytes input = seeds[static_cast<std::size_t>(random()) % seeds.size()];
    for (auto mistakes = 1 + random() % 4; mistakes > 0; --mistakes) spoil(input, seeds, random);
    LLVMFuzzerTestOneInput(input.data(), input.size());
  }
  std::printf("%zu seeds, %d inputs made of them\n", seeds.size(), rounds);
}
