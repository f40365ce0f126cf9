#include <fcntl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "tensor/hash.h"
#include "ttt/base/error.h"
#include "ttt/base/memory.h"
#include "ttt/tensor/lazy_weight.h"

namespace ttt::inline v2 {

namespace fs = std::filesystem;

namespace {

constexpr char magic[8] = {'T', 'T', 'T', 'W', 'G', 'H', 'T', '\n'};
constexpr std::uint32_t format_version = 1;  // of the file and of what goes into the key
constexpr std::size_t payload_alignment = 4096;
constexpr std::size_t smallest_cached = std::size_t{64} << 10;
constexpr auto unused_after = std::chrono::hours(24 * 90);
constexpr const char* suffix = ".tttw";
constexpr const char* temporary_suffix = ".tmp";

struct Header {
  char magic[8];
  std::uint32_t version, key_bytes;
  std::uint64_t payload_offset, payload_bytes, payload_hash;
  std::uint64_t header_hash;  // of the header with zero here, then the key
};
static_assert(sizeof(Header) == 48);

std::uint64_t header_hash(Header header, std::string_view key) {
  header.header_hash = 0;
  return detail::Hasher().add(std::as_bytes(std::span(&header, 1))).add(key).value();
}

// Everything that decides the bytes, readable; the file name is its hash, the header repeats it.
std::string key_of(const WeightSource& source, const WeightSpec& spec, const std::string& packing) {
  char fingerprint[17];
  std::snprintf(fingerprint, sizeof fingerprint, "%016llx",
                static_cast<unsigned long long>(source.fingerprint()));
  return "source " + std::string(fingerprint) + " rows " + std::to_string(source.rows()) + " cols " +
         std::to_string(source.cols()) + " role " + std::to_string(static_cast<int>(spec.role)) +
         " experts " + std::to_string(spec.experts) + " dtype " + std::string(name(spec.dtype)) + " memory " +
         to_string(spec.memory) + " packing " + packing;
}

std::string file_name(std::string_view key) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx",
                static_cast<unsigned long long>(detail::Hasher().add(key).value()));
  return std::string(text) + suffix;
}

class File {
 public:
  explicit File(int fd) : fd_(fd) {}
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  ~File() {
    if (fd_ >= 0) ::close(fd_);
  }
  bool open() const { return fd_ >= 0; }
  int get() const { return fd_; }

 private:
  int fd_;
};

// Pages that belong to nobody else: mapped read-only from a file, or fresh memory.
struct Pages {
  std::span<std::byte> bytes{};
  std::shared_ptr<void> owner{};
};

Pages adopt_mapping(void* address, std::size_t size) {
  return {{static_cast<std::byte*>(address), size},
          std::shared_ptr<void>(address, [size](void* p) { ::munmap(p, size); })};
}

Pages fresh_memory(std::size_t size) {
  void* address = ::mmap(nullptr, std::max<std::size_t>(size, 1), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (address == MAP_FAILED) throw std::bad_alloc();
  want_huge_pages(address, size);
  Pages pages = adopt_mapping(address, std::max<std::size_t>(size, 1));
  pages.bytes = pages.bytes.first(size);
  return pages;
}

bool checksum_wanted() {
  const char* text = std::getenv("TTT_CACHE_VERIFY");
  return text == nullptr || std::string_view(text) != "header";
}

// The payload of a cache file, or nothing when there is no such file or it is not what the key says.
std::optional<Pages> map_file(const fs::path& path, std::string_view key, std::size_t payload_bytes) {
  const File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  struct stat status {};
  if (!file.open() || ::fstat(file.get(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size < sizeof(Header) + key.size()) return std::nullopt;
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.get(), 0);
  if (address == MAP_FAILED) return std::nullopt;
  want_huge_pages(address, size);
  Pages pages = adopt_mapping(address, size);

  Header header;
  std::memcpy(&header, pages.bytes.data(), sizeof header);
  const bool known =
      std::memcmp(header.magic, magic, sizeof magic) == 0 && header.version == format_version &&
      header.key_bytes == key.size() && header.payload_bytes == payload_bytes &&
      header.payload_offset % payload_alignment == 0 && header.payload_offset <= size &&
      header.payload_offset >= sizeof(Header) + key.size() && size - header.payload_offset == payload_bytes;
  if (!known || std::memcmp(pages.bytes.data() + sizeof header, key.data(), key.size()) != 0 ||
      header.header_hash != header_hash(header, key)) {
    return std::nullopt;
  }
  pages.bytes = pages.bytes.subspan(header.payload_offset);
  if (checksum_wanted() && detail::hash_bytes(pages.bytes) != header.payload_hash) return std::nullopt;

  // The time of modification serves as the time of last use; once a day is enough.
  if (std::time(nullptr) - status.st_mtime > 24 * 3600) ::futimens(file.get(), nullptr);
  return pages;
}

void write_all(int fd, std::span<const std::byte> bytes, const fs::path& path) {
  while (!bytes.empty()) {
    const ssize_t n = ::write(fd, bytes.data(), std::min<std::size_t>(bytes.size(), std::size_t{64} << 20));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) throw std::system_error(n == 0 ? ENOSPC : errno, std::generic_category(), path.string());
    bytes = bytes.subspan(static_cast<std::size_t>(n));
  }
}

// A write past RLIMIT_FSIZE would end the process by a signal.
void check_size_limit(std::size_t size, const fs::path& path) {
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && size > limit.rlim_cur) {
    throw std::system_error(EFBIG, std::generic_category(), path.string());
  }
}

// Throws std::system_error; leaves no temporary file behind.
void write_file(const fs::path& path, std::string_view key, std::span<const std::byte> payload) {
  static std::atomic<unsigned> counter{0};
  const std::size_t offset =
      (sizeof(Header) + key.size() + payload_alignment - 1) / payload_alignment * payload_alignment;
  check_size_limit(offset + payload.size(), path);
  const fs::path temporary =
      path.string() + "." + std::to_string(::getpid()) + "-" + std::to_string(counter++) + temporary_suffix;
  const File file(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
  if (!file.open()) throw std::system_error(errno, std::generic_category(), temporary.string());
  try {
    std::vector<std::byte> head(offset);
    Header header{};
    std::memcpy(header.magic, magic, sizeof magic);
    header.version = format_version;
    header.key_bytes = static_cast<std::uint32_t>(key.size());
    header.payload_offset = offset;
    header.payload_bytes = payload.size();
    header.payload_hash = detail::hash_bytes(payload);
    header.header_hash = header_hash(header, key);
    std::memcpy(head.data(), &header, sizeof header);
    std::memcpy(head.data() + sizeof header, key.data(), key.size());
    write_all(file.get(), head, temporary);
    write_all(file.get(), payload, temporary);
    // Without this a power failure could leave a file of the right size that holds zeros.
    if (::fsync(file.get()) != 0) throw std::system_error(errno, std::generic_category(), temporary.string());
    if (::rename(temporary.c_str(), path.c_str()) != 0)
      throw std::system_error(errno, std::generic_category(), path.string());
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
}

struct Entry {
  fs::path path;
  std::uintmax_t bytes = 0;
  fs::file_time_type used{};
  bool temporary = false;
};

// Only files that this class has written; anything else in the folder is left alone.
std::vector<Entry> entries(const fs::path& folder) {
  std::vector<Entry> all;
  std::error_code ignored;
  for (fs::directory_iterator it(folder, ignored), end; !ignored && it != end; it.increment(ignored)) {
    const std::string text = it->path().filename().string();
    Entry e{it->path()};
    e.temporary = text.ends_with(temporary_suffix) && text.find(suffix) != std::string::npos;
    if (!e.temporary && !text.ends_with(suffix)) continue;
    std::error_code gone;
    e.bytes = it->file_size(gone);
    if (gone) continue;
    e.used = it->last_write_time(gone);
    if (!gone) all.push_back(std::move(e));
  }
  return all;
}

std::uintmax_t remove_entry(const Entry& e) {
  std::error_code failed;
  return fs::remove(e.path, failed) ? e.bytes : 0;
}

// Another process may be writing a temporary file; a day old, it is abandoned.
bool abandoned(const Entry& e) {
  return e.temporary && fs::file_time_type::clock::now() - e.used > std::chrono::hours(24);
}

}  // namespace

// Weights smaller than a huge page, side by side in memory of huge pages.
class SmallWeights {
 public:
  static constexpr std::size_t most = huge_page;

  Pages take(std::size_t size) {
    const std::lock_guard lock(mutex_);
    if (size > free_.bytes.size()) free_ = fresh_memory(chunk);
    const Pages pages{free_.bytes.first(size), free_.owner};
    const std::size_t step = (size + payload_alignment - 1) / payload_alignment * payload_alignment;
    free_.bytes = free_.bytes.subspan(std::min(step, free_.bytes.size()));
    return pages;
  }

 private:
  static constexpr std::size_t chunk = std::size_t{32} << 20;
  std::mutex mutex_;
  Pages free_;  // the rest of the latest chunk, which lives as long as a weight in it or this
};

struct WeightCache::State {
  std::mutex mutex;
  std::string warning;
  std::once_flag cleaned;
  SmallWeights small;
};

WeightCache::WeightCache(fs::path folder) : folder_(std::move(folder)), state_(std::make_shared<State>()) {}

fs::path WeightCache::default_folder() {
  const auto variable = [](const char* name) {
    const char* text = std::getenv(name);
    return fs::path(text != nullptr ? text : "");
  };
  if (const fs::path own = variable("TTT_CACHE"); !own.empty()) return own / "weights";
  if (const fs::path xdg = variable("XDG_CACHE_HOME"); xdg.is_absolute()) return xdg / "ttt" / "weights";
  if (const fs::path home = variable("HOME"); home.is_absolute()) return home / ".cache" / "ttt" / "weights";
  return {};
}

std::string WeightCache::warning() const {
  if (!state_) return {};
  const std::lock_guard lock(state_->mutex);
  return state_->warning;
}

std::uintmax_t WeightCache::bytes() const {
  std::uintmax_t total = 0;
  for (const Entry& e : entries(folder_)) total += e.bytes;
  return total;
}

std::uintmax_t WeightCache::prune(std::uintmax_t limit) const {
  std::vector<Entry> all = entries(folder_);
  std::sort(all.begin(), all.end(), [](const Entry& a, const Entry& b) { return a.used < b.used; });
  std::uintmax_t total = 0, removed = 0;
  for (const Entry& e : all) {
    if (abandoned(e)) {
      removed += remove_entry(e);
    } else if (!e.temporary) {
      total += e.bytes;
    }
  }
  for (const Entry& e : all) {
    if (total <= limit) break;
    if (e.temporary) continue;
    total -= e.bytes;
    removed += remove_entry(e);
  }
  return removed;
}

Tensor WeightCache::load(const WeightSourcePtr& source, const WeightSpec& spec, Device& device) const {
  if (!source) throw Error("no weight to load");
  const std::int64_t rows = source->rows(), cols = source->cols();
  weight_shape(spec, rows, cols);  // refuses rows that do not divide among the experts
  const std::size_t size = device.packed_bytes(spec, rows, cols);
  const std::string packing = device.packing(spec);
  if (packing == row_major_packing) {
    const std::span<const std::byte> mapped = source->mapped(spec.dtype);
    const std::size_t alignment = std::max<std::size_t>(element_size(spec.dtype), 1);
    if (mapped.size() == size && !mapped.empty() &&
        reinterpret_cast<std::uintptr_t>(mapped.data()) % alignment == 0) {
      return device.adopt(spec, rows, cols, mapped, source);
    }
  }
  if (!device.computes()) return device.adopt(spec, rows, cols, {}, nullptr);

  const bool cached = !folder_.empty() && size >= smallest_cached;
  const std::string key = cached ? key_of(*source, spec, packing) : std::string();
  const fs::path path = cached ? folder_ / file_name(key) : fs::path();
  if (cached) {
    if (std::optional<Pages> pages = map_file(path, key, size)) {
      if (size < SmallWeights::most) {
        const Pages copy = state_->small.take(size);
        std::ranges::copy(pages->bytes, copy.bytes.begin());
        pages = copy;
      }
      return device.adopt(spec, rows, cols, pages->bytes, std::move(pages->owner));
    }
  }
  const bool small = state_ && size < SmallWeights::most;
  Pages pages = small ? state_->small.take(size) : fresh_memory(size);
  device.pack(*source, spec, pages.bytes);
  source->release();
  if (cached) {
    try {
      fs::create_directories(folder_);
      std::call_once(state_->cleaned, [&] {
        for (const Entry& e : entries(folder_)) {
          if (abandoned(e) || fs::file_time_type::clock::now() - e.used > unused_after) remove_entry(e);
        }
      });
      write_file(path, key, pages.bytes);
      // From now on the pages are the file's: the system may drop and reread them.
      if (small) return device.adopt(spec, rows, cols, pages.bytes, std::move(pages.owner));
      if (std::optional<Pages> mapped = map_file(path, key, size)) pages = std::move(*mapped);
    } catch (const std::system_error& error) {
      const std::lock_guard lock(state_->mutex);
      if (state_->warning.empty()) {
        state_->warning =
            Error("converted weights stay in memory: " + error.code().message(), folder_.string(),
                  "make room or set TTT_CACHE to a folder that can be written")
                .what();
      }
    }
  }
  return device.adopt(spec, rows, cols, pages.bytes, std::move(pages.owner));
}

}  // namespace ttt::inline v2
