// Tiny checkpoints for tests: described by a small JSON file, filled by an integer-only counter-based
// generator that tools/fixtures/generator.py has too (its comment is the specification), so that only outputs
// of the reference are stored.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::testing {

// How a tensor's values are distributed.
enum class FixtureKind {
  matrix,         // normal, deviation 1.1 / sqrt(last dimension): a projection stored [out, in]
  matrix_in_out,  // normal, deviation 1.1 / sqrt(first dimension): a projection stored [in, out]
  embedding,      // normal, deviation 0.6
  norm,           // uniform in 1 +- 0.4
  bias,           // uniform in +- 0.3
};

// Kind of its name in a fixture file. Throws Error when there is none of that name.
FixtureKind fixture_kind(std::string_view name);

// Values of the tensor `name` [shape], row-major, as bf16 bit patterns. `gain` (in hundredths) replaces the
// 110 or 60 of the normal kinds. Throws Error on an empty shape, a dimension below 1, more than 2^28
// elements, or a gain outside 1 to 10000.
std::vector<std::uint16_t> fixture_values(std::string_view name, std::uint64_t seed, FixtureKind kind,
                                          std::span<const std::int64_t> shape,
                                          std::optional<std::int64_t> gain = {});

// `length` token ids in [first, vocab): prompts for fixtures.
std::vector<std::int64_t> fixture_prompt(std::uint64_t seed, std::size_t length, std::int64_t vocab,
                                         std::int64_t first);

// Writes the Hugging Face checkpoint that the fixture file describes (config.json and model.safetensors, or
// shards and their index) into `folder`, which is made when missing. Byte for byte what
// tools/fixtures/make_fixture.py writes. Throws Error, naming the file and the row, when the fixture is
// malformed or something cannot be written.
void write_fixture(const std::filesystem::path& fixture, const std::filesystem::path& folder);

// SHA-256 as 64 lowercase hexadecimal digits.
std::string sha256(std::span<const std::byte> data);

// SHA-256 over the safetensors files of a folder, one after the other in the order of their names: the key
// `source_sha256` in the metadata of a reference file. Throws Error when a file cannot be read.
std::string source_sha256(const std::filesystem::path& folder);

}  // namespace ttt::inline v2::testing
