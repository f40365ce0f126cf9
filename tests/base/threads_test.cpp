#include "ttt/base/threads.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <thread>

namespace ttt {
namespace {

namespace fs = std::filesystem;

// Four cores of two threads as Linux shows them: 0 and 4, 1 and 5, ..
class Topology : public testing::Test {
 protected:
  Topology() {
    for (int i = 0; i < 8; ++i) {
      const fs::path folder = root_ / ("cpu" + std::to_string(i)) / "topology";
      fs::create_directories(folder);
      std::ofstream(folder / "thread_siblings_list") << i % 4 << "," << i % 4 + 4 << "\n";
    }
  }
  ~Topology() override { fs::remove_all(root_); }
  fs::path root_ = fs::path(testing::TempDir()) / ("topology" + std::to_string(::getpid()));
};

TEST_F(Topology, ThreadsOfOneCoreAreOneCore) {
  EXPECT_EQ(cores_of({0, 1, 2, 3, 4, 5, 6, 7}, root_), 4);
  EXPECT_EQ(cores_of({0, 4}, root_), 1);
  EXPECT_EQ(cores_of({1, 2, 5}, root_), 2);
  EXPECT_EQ(cores_of({}, root_), 0);
  EXPECT_EQ(cores_of({0, 4, 20, 21}, root_), 3);  // nobody knows 20 and 21
  EXPECT_EQ(cores_of({0, 4}, root_ / "nowhere"), 2);
}

TEST(UsableThreads, FollowTheAffinity) {
  EXPECT_GE(usable_threads(), 1);
  std::thread([] {
    cpu_set_t allowed, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof allowed, &allowed), 0);
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &allowed)) {
        CPU_SET(i, &one);
        break;
      }
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    EXPECT_EQ(usable_threads(), 1);
  }).join();
}

}  // namespace
}  // namespace ttt
