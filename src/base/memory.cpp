#include "ttt/base/memory.h"

#include <sys/mman.h>

namespace ttt::inline v2 {

void want_huge_pages([[maybe_unused]] void* address, [[maybe_unused]] std::size_t bytes) noexcept {
#ifdef MADV_HUGEPAGE
  ::madvise(address, bytes, MADV_HUGEPAGE);
#endif
}

}  // namespace ttt::inline v2
