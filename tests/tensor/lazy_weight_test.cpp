#include "ttt/tensor/lazy_weight.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <random>
#include <thread>

#include "tensor/fake_device.h"

namespace ttt {
namespace {

namespace fs = std::filesystem;

std::vector<float> noise(std::size_t n, unsigned seed = 1) {
  std::mt19937 random(seed);
  std::vector<float> v(n);
  for (float& x : v) x = static_cast<float>(random() % 2000) / 64 - 15;
  return v;
}

class WeightCacheTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (fs::temp_directory_path() / "ttt_cache_XXXXXX").string();
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    folder = pattern;
    unsetenv("TTT_CACHE_VERIFY");
  }
  void TearDown() override {
    fs::permissions(folder, fs::perms::owner_all, fs::perm_options::add);
    fs::remove_all(folder);
  }
  std::vector<fs::path> files() const {
    std::vector<fs::path> all;
    for (const auto& entry : fs::directory_iterator(folder)) all.push_back(entry.path());
    return all;
  }
  // 192 KiB packed: large enough to be cached.
  LazyWeight weight(unsigned seed = 1) const {
    return LazyWeight(make_source(noise(192 * 256, seed), 192, 256), WeightRole::linear, "w");
  }
  std::vector<float> load(FakeDevice& device, const WeightCache& cache, unsigned seed = 1) const {
    const LazyWeight w = weight(seed).bind(device, DataType::f32, {}, cache);
    std::vector<float> out(192 * 256);
    const auto packed = static_cast<FakeBuffer&>(w.get().buffer()).packed();
    EXPECT_EQ(packed.size(), out.size() * 4);
    std::memcpy(out.data(), packed.data(), packed.size());
    return out;
  }
  fs::path folder;
};

TEST_F(WeightCacheTest, ConvertsOnce) {
  FakeDevice device;
  EXPECT_EQ(load(device, WeightCache(folder)), noise(192 * 256));
  EXPECT_EQ(device.packs, 1);
  ASSERT_EQ(files().size(), 1u);
  EXPECT_EQ(load(device, WeightCache(folder)), noise(192 * 256));
  EXPECT_EQ(device.packs, 1);
  EXPECT_EQ(load(device, WeightCache(folder), 2), noise(192 * 256, 2));  // other values, other file
  EXPECT_EQ(files().size(), 2u);
  EXPECT_TRUE(WeightCache(folder).warning().empty());
}

TEST_F(WeightCacheTest, KeyHoldsAllThatDecidesTheBytes) {
  FakeDevice device;
  const WeightCache cache(folder);
  weight().bind(device, DataType::f32, {}, cache).get();
  weight().bind(device, DataType::bf16, {}, cache).get();
  weight().experts(4).bind(device, DataType::f32, {}, cache).get();
  weight().experts(8).bind(device, DataType::f32, {}, cache).get();
  weight().bind(device, DataType::f32, {.buffer_type = BufferType::l1}, cache).get();
  device.pack_format = "fake 2";
  weight().bind(device, DataType::f32, {}, cache).get();
  EXPECT_EQ(device.packs, 6);
  EXPECT_EQ(files().size(), 6u);
}

TEST_F(WeightCacheTest, SmallWeightsAreNotCached) {
  FakeDevice device;
  LazyWeight::from_values({1, 2, 3, 4}, 1, 4, WeightRole::vector)
      .bind(device, DataType::f32, {}, WeightCache(folder))
      .get();
  EXPECT_TRUE(files().empty());
}

TEST_F(WeightCacheTest, DamagedFilesAreRebuilt) {
  FakeDevice device;
  load(device, WeightCache(folder));
  const fs::path file = files().at(0);
  const auto size = static_cast<std::streamoff>(fs::file_size(file));
  int packs = 1;
  const auto expect_rebuilt = [&](const std::string& what) {
    EXPECT_EQ(load(device, WeightCache(folder)), noise(192 * 256)) << what;
    EXPECT_EQ(device.packs, ++packs) << what;
    EXPECT_EQ(load(device, WeightCache(folder)), noise(192 * 256)) << what;
    EXPECT_EQ(device.packs, packs) << what;  // whole again
  };
  for (std::streamoff at : {0, 8, 12, 16, 24, 32, 40, 48, 60, 4096, 5000, static_cast<int>(size - 1)}) {
    std::fstream f(file, std::ios::in | std::ios::out | std::ios::binary);
    f.seekg(at);
    const char flipped = static_cast<char>(f.get() ^ 4);
    f.seekp(at);
    f.put(flipped);
    f.close();
    expect_rebuilt("bit flipped at " + std::to_string(at));
  }
  for (std::streamoff left : {0, 1, 47, 48, 100, 4096, static_cast<int>(size - 1)}) {
    fs::resize_file(file, static_cast<std::uintmax_t>(left));
    expect_rebuilt("cut to " + std::to_string(left));
  }
  fs::resize_file(file, static_cast<std::uintmax_t>(size + 1));
  expect_rebuilt("longer by one");
  std::ofstream(file, std::ios::binary) << std::string(static_cast<std::size_t>(size), 'x');
  expect_rebuilt("foreign");
}

TEST_F(WeightCacheTest, AnotherWeightsFileUnderTheNameIsRefused) {
  FakeDevice device;
  load(device, WeightCache(folder), 1);
  const fs::path first = files().at(0);
  load(device, WeightCache(folder), 2);
  for (const fs::path& file : files()) {
    if (file != first) fs::copy_file(file, first, fs::copy_options::overwrite_existing);
  }
  EXPECT_EQ(load(device, WeightCache(folder), 1), noise(192 * 256, 1));
  EXPECT_EQ(device.packs, 3);
}

TEST_F(WeightCacheTest, ChecksumCanBeLeftOut) {
  FakeDevice device;
  load(device, WeightCache(folder));
  std::fstream f(files().at(0), std::ios::in | std::ios::out | std::ios::binary);
  f.seekp(5000);
  f.put('\x55');
  f.close();
  setenv("TTT_CACHE_VERIFY", "header", 1);
  EXPECT_NE(load(device, WeightCache(folder)), noise(192 * 256));
  EXPECT_EQ(device.packs, 1);
  unsetenv("TTT_CACHE_VERIFY");
}

TEST_F(WeightCacheTest, ADirectoryUnderTheNameIsLeftAlone) {
  FakeDevice device;
  load(device, WeightCache(folder));
  const fs::path file = files().at(0);
  fs::remove(file);
  fs::create_directory(file);
  const WeightCache cache(folder);
  EXPECT_EQ(load(device, cache), noise(192 * 256));
  EXPECT_NE(cache.warning(), "");
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(WeightCacheTest, FolderThatCannotBeMade) {
  FakeDevice device;
  const fs::path blocked = folder / "file";
  std::ofstream(blocked) << "x";
  const WeightCache cache(blocked / "weights");
  EXPECT_EQ(load(device, cache), noise(192 * 256));
  EXPECT_NE(cache.warning().find("converted weights stay in memory"), std::string::npos) << cache.warning();
  const std::string first = cache.warning();
  EXPECT_EQ(load(device, cache, 2), noise(192 * 256, 2));
  EXPECT_EQ(cache.warning(), first);
}

// In a child, which gives up the rights that the tests may run with.
template <class F>
int in_child(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(f());
  int status = -1;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + status;
}

TEST_F(WeightCacheTest, ReadOnlyFolder) {
  FakeDevice device;
  load(device, WeightCache(folder), 1);
  for (const fs::path& file : files()) fs::permissions(file, fs::perms::others_read, fs::perm_options::add);
  fs::permissions(folder, fs::perms(0555));
  const int result = in_child([&] {
    if (::geteuid() == 0 && ::setuid(65534) != 0) return 10;
    const WeightCache cache(folder);
    if (load(device, cache, 1) != noise(192 * 256, 1) || device.packs != 1) return 1;  // still mapped
    if (!cache.warning().empty()) return 2;
    if (load(device, cache, 2) != noise(192 * 256, 2) || device.packs != 2) return 3;
    return cache.warning().empty() ? 4 : 0;
  });
  EXPECT_EQ(result, 0);
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(WeightCacheTest, FileSizeLimit) {
  FakeDevice device;
  const int result = in_child([&] {
    const rlimit limit{100000, 100000};
    if (::setrlimit(RLIMIT_FSIZE, &limit) != 0) return 10;
    const WeightCache cache(folder);
    if (load(device, cache) != noise(192 * 256)) return 1;
    return cache.warning().empty() ? 2 : 0;
  });
  EXPECT_EQ(result, 0);
  EXPECT_TRUE(files().empty());  // no half-written file either
}

TEST_F(WeightCacheTest, FullDisk) {
  if (!fs::exists("/dev/shm") ||
      std::system(("mount -t tmpfs -o size=128k tmpfs " + folder.string() + " 2>/dev/null").c_str()) != 0) {
    GTEST_SKIP() << "a tiny file system cannot be mounted here";
  }
  FakeDevice device;
  const WeightCache cache(folder);
  EXPECT_EQ(load(device, cache), noise(192 * 256));
  EXPECT_NE(cache.warning().find("No space left"), std::string::npos) << cache.warning();
  EXPECT_TRUE(files().empty());
  EXPECT_EQ(std::system(("umount " + folder.string()).c_str()), 0);
}

TEST_F(WeightCacheTest, ProcessesWriteAtOnce) {
  std::vector<pid_t> children;
  for (int k = 0; k < 6; ++k) {
    const pid_t child = ::fork();
    if (child == 0) {
      FakeDevice device;
      bool good = true;
      for (unsigned seed = 1; seed <= 5; ++seed) {
        const WeightCache cache(folder);
        good = good && load(device, cache, seed) == noise(192 * 256, seed) && cache.warning().empty();
        if (k % 2 == 0) {  // and somebody deletes the files under their feet
          std::error_code ignored;
          for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end;
               it.increment(ignored)) {
            if (it->path().extension() == ".tttw") fs::remove(it->path(), ignored);
          }
        }
      }
      ::_exit(good ? 0 : 1);
    }
    children.push_back(child);
  }
  for (const pid_t child : children) {
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  for (const fs::path& file : files()) EXPECT_EQ(file.extension(), ".tttw") << file;
  FakeDevice device;
  for (unsigned seed = 1; seed <= 5; ++seed)
    EXPECT_EQ(load(device, WeightCache(folder), seed), noise(192 * 256, seed));
}

TEST_F(WeightCacheTest, KilledWritersLeaveNothingThatCounts) {
  for (int k = 0; k < 10; ++k) {
    const pid_t child = ::fork();
    if (child == 0) {
      FakeDevice device;
      for (unsigned seed = 1;; ++seed) load(device, WeightCache(folder), seed);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(5 + 7 * k));
    ::kill(child, SIGKILL);
    int status = 0;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFSIGNALED(status));
  }
  FakeDevice device;
  for (unsigned seed = 1; seed <= 20; ++seed) {
    const WeightCache cache(folder);
    EXPECT_EQ(load(device, cache, seed), noise(192 * 256, seed));
    EXPECT_TRUE(cache.warning().empty()) << cache.warning();
  }
}

TEST_F(WeightCacheTest, MappedPagesOutliveTheFile) {
  FakeDevice device;
  load(device, WeightCache(folder));
  const LazyWeight w = weight().bind(device, DataType::f32, {}, WeightCache(folder));
  const auto packed = static_cast<FakeBuffer&>(w.get().buffer()).packed();
  EXPECT_EQ(device.packs, 1);
  for (const fs::path& file : files()) fs::remove(file);
  EXPECT_EQ(std::memcmp(packed.data(), noise(192 * 256).data(), packed.size()), 0);
}

TEST_F(WeightCacheTest, PruneRemovesTheOldest) {
  FakeDevice device;
  const WeightCache cache(folder);
  const auto now = fs::file_time_type::clock::now();
  for (unsigned seed = 1; seed <= 3; ++seed) {
    const std::vector<fs::path> before = files();
    load(device, cache, seed);
    for (const fs::path& file : files()) {
      if (std::find(before.begin(), before.end(), file) == before.end())
        fs::last_write_time(file, now - std::chrono::hours(10 * (4 - seed)));
    }
  }
  std::ofstream(folder / "notes.txt") << "not ours";
  const fs::path interrupted = folder / "00.tttw.1-1.tmp", young = folder / "01.tttw.1-1.tmp";
  std::ofstream(interrupted) << "half";
  std::ofstream(young) << "half";
  fs::last_write_time(interrupted, now - std::chrono::hours(48));
  const std::uintmax_t one =
      fs::file_size(files().at(0).extension() == ".tttw" ? files().at(0) : files().at(1));
  EXPECT_GE(cache.bytes(), 3 * (192 * 256 * 4u));
  EXPECT_GT(cache.prune(2 * (192 * 256 * 4 + 8192)), one / 2);
  EXPECT_FALSE(fs::exists(interrupted));
  EXPECT_TRUE(fs::exists(young));
  EXPECT_TRUE(fs::exists(folder / "notes.txt"));
  device.packs = 0;
  load(device, cache, 2), load(device, cache, 3);
  EXPECT_EQ(device.packs, 0);
  load(device, cache, 1);
  EXPECT_EQ(device.packs, 1);  // the oldest was gone
  cache.prune(0);
  EXPECT_EQ(files().size(), 2u);
}

TEST_F(WeightCacheTest, UnusedFilesGoWithTheFirstWrite) {
  FakeDevice device;
  load(device, WeightCache(folder), 1);
  const fs::path old = files().at(0);
  fs::last_write_time(old, fs::file_time_type::clock::now() - std::chrono::hours(24 * 100));
  load(device, WeightCache(folder), 2);
  EXPECT_FALSE(fs::exists(old));
  EXPECT_EQ(files().size(), 1u);
}

TEST_F(WeightCacheTest, UseIsNoted) {
  FakeDevice device;
  load(device, WeightCache(folder));
  const fs::path file = files().at(0);
  const auto old = fs::file_time_type::clock::now() - std::chrono::hours(24 * 60);
  fs::last_write_time(file, old);
  load(device, WeightCache(folder));
  EXPECT_GT(fs::last_write_time(file), old + std::chrono::hours(1));
}

TEST_F(WeightCacheTest, DefaultFolder) {
  const auto keep = [](const char* name) { return std::string(std::getenv(name) ? std::getenv(name) : ""); };
  const std::string home = keep("HOME"), xdg = keep("XDG_CACHE_HOME"), own = keep("TTT_CACHE");
  setenv("TTT_CACHE", "/a/b", 1);
  EXPECT_EQ(WeightCache::default_folder(), "/a/b/weights");
  unsetenv("TTT_CACHE");
  setenv("XDG_CACHE_HOME", "/x", 1);
  EXPECT_EQ(WeightCache::default_folder(), "/x/ttt/weights");
  unsetenv("XDG_CACHE_HOME");
  setenv("HOME", "/home/me", 1);
  EXPECT_EQ(WeightCache::default_folder(), "/home/me/.cache/ttt/weights");
  unsetenv("HOME");
  EXPECT_EQ(WeightCache::default_folder(), "");
  if (!home.empty()) setenv("HOME", home.c_str(), 1);
  if (!xdg.empty()) setenv("XDG_CACHE_HOME", xdg.c_str(), 1);
  if (!own.empty()) setenv("TTT_CACHE", own.c_str(), 1);
}

TEST(LazyWeight, MappedSourcesAreAdopted) {
  FakeDevice device;
  device.pack_format = std::string(row_major_packing);
  const auto source = make_source(noise(64 * 512), 64, 512);
  const LazyWeight w = LazyWeight(source, WeightRole::embedding, "embed").bind(device, DataType::f32);
  EXPECT_EQ(static_cast<FakeBuffer&>(w.get().buffer()).packed().data(), source->mapped(DataType::f32).data());
  EXPECT_EQ(device.packs, 0);
  EXPECT_EQ(w.get().shape(), (Shape{1, 1, 64, 512}));
}

TEST(LazyWeight, BindAndGet) {
  FakeDevice device;
  const LazyWeight w = LazyWeight::from_values({1, 2, 3, 4, 5, 6}, 2, 3);
  EXPECT_THROW(w.get(), Error);
  const LazyWeight bound = w.bind(device, DataType::f32);
  EXPECT_FALSE(bound.materialised());
  EXPECT_EQ(bound.bytes(), 24u);
  EXPECT_EQ(device.packs, 0);
  EXPECT_EQ(bound.get().shape(), (Shape{1, 1, 3, 2}));
  EXPECT_TRUE(bound.materialised());
  EXPECT_FALSE(w.materialised());
  EXPECT_EQ(bound.bind(device, DataType::f32), bound);
  EXPECT_FALSE(bound.bind(device, DataType::bf16) == bound);
  EXPECT_FALSE(LazyWeight().defined());
  EXPECT_THROW(LazyWeight().get(), Error);
  EXPECT_EQ(LazyWeight().bind(device, DataType::f32).defined(), false);
  EXPECT_THROW(w.experts(4), Error);
}

TEST(LazyWeight, ThreadsGetOneTensor) {
  FakeDevice device;
  const LazyWeight w = LazyWeight(make_source(noise(300 * 300), 300, 300), WeightRole::linear, "w")
                           .bind(device, DataType::f32);
  std::vector<std::thread> threads;
  for (int k = 0; k < 8; ++k) threads.emplace_back([&] { w.get(); });
  for (std::thread& t : threads) t.join();
  EXPECT_EQ(device.packs, 1);
}

TEST(LazyWeight, AFailureNamesTheWeightAndCanBeRepeated) {
  class Broken final : public WeightSource {
   public:
    std::int64_t rows() const override { return 2; }
    std::int64_t cols() const override { return 2; }
    void read(std::int64_t, std::int64_t, float* out) const override {
      if (broken) throw Error("the file is too short");
      std::fill_n(out, 4, 1.0f);
    }
    std::uint64_t fingerprint() const override { return 1; }
    std::string describe() const override { return "q_proj in a file"; }
    mutable bool broken = true;
  };
  FakeDevice device;
  const auto source = std::make_shared<Broken>();
  const LazyWeight w = LazyWeight(source, WeightRole::linear, "layers.0.attn.q").bind(device, DataType::f32);
  try {
    w.get();
    FAIL();
  } catch (const Error& e) {
    EXPECT_STREQ(e.what(), "the file is too short, layers.0.attn.q (q_proj in a file)");
  }
  source->broken = false;
  EXPECT_TRUE(w.get().defined());
}

std::vector<float> read_all(const WeightSource& s) {
  std::vector<float> out(static_cast<std::size_t>(s.rows() * s.cols()));
  s.read(0, s.rows(), out.data());
  return out;
}

TEST(LazyWeight, ConcatOfMatrices) {
  const auto w = [](std::vector<float> v, std::int64_t rows, const char* name) {
    return LazyWeight(make_source(std::move(v), rows, 2), WeightRole::linear, name);
  };
  const LazyWeight fused =
      LazyWeight::concat({w({1, 2, 3, 4}, 2, "q"), w({5, 6}, 1, "k"), w({7, 8}, 1, "v")});
  EXPECT_EQ(fused.name(), "q+k+v");
  EXPECT_EQ(fused.rows(), 4);
  EXPECT_EQ(read_all(*fused.source()), (std::vector<float>{1, 2, 3, 4, 5, 6, 7, 8}));
  EXPECT_THROW(LazyWeight::concat({w({1, 2}, 1, "q"), LazyWeight()}), Error);
  EXPECT_THROW(LazyWeight::concat({}), Error);
  EXPECT_THROW(
      LazyWeight::concat({w({1, 2}, 1, "q"), LazyWeight::from_values({1, 2}, 1, 2, WeightRole::vector)}),
      Error);
}

TEST(LazyWeight, ConcatOfVectorsIsAlongTheColumns) {
  const auto v = [](std::vector<float> values, std::int64_t rows) {
    const auto cols = static_cast<std::int64_t>(values.size()) / rows;
    return LazyWeight::from_values(std::move(values), rows, cols, WeightRole::vector);
  };
  const LazyWeight biases = LazyWeight::concat({v({1, 2}, 1), v({3}, 1), v({4, 5}, 1)});
  EXPECT_EQ(biases.rows(), 1);
  EXPECT_EQ(read_all(*biases.source()), (std::vector<float>{1, 2, 3, 4, 5}));
  const LazyWeight table = LazyWeight::concat({v({1, 2, 3, 4}, 2), v({5, 6}, 2)});
  EXPECT_EQ(table.rows(), 2);
  EXPECT_EQ(read_all(*table.source()), (std::vector<float>{1, 2, 5, 3, 4, 6}));
  EXPECT_THROW(LazyWeight::concat({v({1, 2}, 1), v({1, 2}, 2)}), Error);
}

TEST(LazyWeight, ConcatOfExpertsIsPerExpert) {
  const LazyWeight gate = LazyWeight(make_source({1, 2, 3, 4}, 4, 1), WeightRole::experts).experts(2);
  const LazyWeight up = LazyWeight(make_source({5, 6, 7, 8}, 4, 1), WeightRole::experts).experts(2);
  const LazyWeight fused = LazyWeight::concat({gate, up});
  EXPECT_EQ(fused.spec().experts, 2);
  EXPECT_EQ(read_all(*fused.source()), (std::vector<float>{1, 2, 5, 6, 3, 4, 7, 8}));
}

}  // namespace
}  // namespace ttt
