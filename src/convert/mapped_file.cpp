#include "ttt/convert/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ttt/base/error.h"

namespace ttt::inline v2 {

std::shared_ptr<const MappedFile> MappedFile::open(const std::filesystem::path& path) {
  const std::string where = printable(path.string(), 400);
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) throw Error(std::string("can not be opened: ") + std::strerror(errno), where);
  struct Closer {
    int descriptor;
    ~Closer() { ::close(descriptor); }
  } closer{descriptor};
  struct stat status {};
  if (::fstat(descriptor, &status) != 0)
    throw Error(std::string("can not be read: ") + std::strerror(errno), where);
  if (!S_ISREG(status.st_mode)) throw Error("is no regular file", where);

  std::shared_ptr<MappedFile> file(new MappedFile);
  file->path_ = path;
  file->modified_ = std::int64_t{status.st_mtim.tv_sec} * 1'000'000'000 + status.st_mtim.tv_nsec;
  const auto size = static_cast<std::size_t>(status.st_size);
  if (size > 0) {
    void* data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
    if (data == MAP_FAILED) throw Error(std::string("can not be mapped: ") + std::strerror(errno), where);
    file->data_ = static_cast<const std::byte*>(data);
    file->size_ = size;
  }
  return file;
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::forget(std::size_t offset, std::size_t count) const {
  if (offset >= size_) return;
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin =
      (offset + page - 1) / page * page;  // only whole pages: the others hold neighbours too
  const std::size_t end = (offset + std::min(count, size_ - offset)) / page * page;
  if (begin < end) ::madvise(const_cast<std::byte*>(data_) + begin, end - begin, MADV_DONTNEED);
}

}  // namespace ttt::inline v2
