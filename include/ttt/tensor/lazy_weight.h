// A weight that is converted and loaded when it is first used, through an on-disk cache of converted bytes.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "ttt/tensor/device.h"

namespace ttt::inline v2 {

// A folder of converted weights: one file per weight, named by a key over the source's fingerprint, the
// dtype, the role and the device's packing. Files are written under another name, flushed and renamed, so
// readers in other processes see whole files only; a damaged or foreign file is rebuilt. Safe to share
// between processes and to delete at any time.
//
// Loading checks the header, the size and the payload's checksum: one pass at memory speed over pages that
// the first token needs anyway. TTT_CACHE_VERIFY=header leaves the checksum out, for weights larger than
// memory. Weights below 64 KiB are not cached. The first write of a process removes files that nobody has
// used for 90 days; prune() does more.
class WeightCache {
 public:
  WeightCache() = default;  // no cache: converted weights stay in memory
  explicit WeightCache(std::filesystem::path folder);
  // $TTT_CACHE/weights, else $XDG_CACHE_HOME/ttt/weights, else ~/.cache/ttt/weights; empty: there is none.
  static std::filesystem::path default_folder();

  const std::filesystem::path& folder() const { return folder_; }
  // The packed tensor of `source` for `device`: mapped from the source itself where its bytes are what the
  // device takes (row_major_packing), else mapped from the cache, converted into it when absent. When the
  // folder can not be written (full disk, read-only) the weight is converted in memory and warning() says
  // why.
  Tensor load(const WeightSourcePtr& source, const WeightSpec&, Device&) const;
  std::string warning() const;  // of the first failed write; empty when there was none

  std::uintmax_t bytes() const;  // of all files in the folder
  // Removes the files used longest ago until at most `limit` bytes are left, and left-overs of interrupted
  // writes; returns the bytes removed.
  std::uintmax_t prune(std::uintmax_t limit) const;

 private:
  struct State;
  std::filesystem::path folder_;
  std::shared_ptr<State> state_;
};

// Value handle; copies share the materialised tensor. get() is thread-safe.
class LazyWeight {
 public:
  LazyWeight() = default;  // no weight: an absent bias
  LazyWeight(WeightSourcePtr source, WeightRole role, std::string name = {});
  // For tests and small programs: values as PyTorch holds them.
  static LazyWeight from_values(std::vector<float> values, std::int64_t rows, std::int64_t cols,
                                WeightRole = WeightRole::linear);

  bool defined() const { return state_ != nullptr; }
  explicit operator bool() const { return defined(); }
  const std::string& name() const;  // "layers.0.attn.q"
  WeightRole role() const;
  std::int64_t rows() const;  // as stored: out, entries
  std::int64_t cols() const;  // as stored: in, dim
  const WeightSourcePtr& source() const;

  // The same source bound to what a plan decided; with the same binding as before, the same weight. The
  // device must outlive it.
  LazyWeight bind(Device&, DataType, MemoryConfig = {}, WeightCache = {}, const Sharding& = {}) const;
  const WeightSpec& spec() const;
  LazyWeight experts(std::int64_t count) const;  // role experts with `count` of them

  // Materialises on first use. Error when the weight was never bound to a device.
  const Tensor& get() const;
  bool materialised() const;
  std::size_t bytes() const;  // packed bytes once bound

  // The outputs of the weights side by side (fused qkv, gate_up): rows of a linear weight or a table, rows of
  // each expert, columns of vectors. Same role, names joined by '+'; the result is unbound.
  // With groups, each part divides into so many, and the first groups of all parts come first: what a device
  // gets of a column-parallel layer is then a fused weight by itself.
  static LazyWeight concat(std::vector<LazyWeight> parts, std::int64_t groups = 1);

  bool operator==(const LazyWeight& other) const { return state_ == other.state_; }

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace ttt::inline v2
