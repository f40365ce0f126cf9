// What a build tree knows of its sources: which objects a file is compiled into, which objects use which, and
// which test cases an object holds. Read from the compiler's dependencies and the objects' symbols, so that
// nobody keeps a list.
#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ttt::inline v2::testing {

class BuildGraph {
 public:
  // Of a folder that CMake generated for Ninja and that was built. Errors: it is none, nothing in it is
  // compiled, ninja, nm or ctest is missing.
  static BuildGraph read(const std::filesystem::path& build_folder);

  struct Use {
    int object = 0;                      // the one that defines them
    std::vector<std::string> symbols{};  // mangled
  };
  struct Object {
    std::string path;                  // below the build folder
    std::string source;                // below the source folder: "src/modules/moe.cpp"
    std::string target;                // CMake's: "ttt_modules", "golden_tests"
    std::vector<Use> uses{};           // of other objects
    std::set<std::string> defines{};   // strong symbols, mangled
    std::vector<std::string> cases{};  // GoogleTest's: "Golden.AgreesWithTheReference"
  };
  // A test of ctest.
  struct Test {
    std::string name, label;  // its first label, else what stands before the first dot
    std::vector<std::string> command{};
  };
  const std::vector<Test>& tests() const { return tests_; }
  const std::vector<Object>& objects() const { return objects_; }
  const std::filesystem::path& source_folder() const { return source_folder_; }
  const std::filesystem::path& build_folder() const { return build_folder_; }

  // Objects that are compiled anew when a file (below the source folder) changes; empty: none reads it.
  const std::set<int>& compiled_from(std::string_view file) const;
  // Whether CMake itself reads the file, so that anything may change with it.
  bool configures(std::string_view file) const { return configures_.contains(file); }
  // Objects of a CMake target.
  std::set<int> of_target(std::string_view target) const;
  // Programs and plug-ins that must be built before a target: what it runs and loads beyond its libraries.
  const std::set<std::string>& runs(std::string_view target) const;
  // `from`, everything that they use, and what that uses; where `stop` says so a use is not followed.
  using Stop = std::function<bool(const Object& user, const Use&)>;
  std::set<int> reach(const std::set<int>& from, const Stop& stop = {}) const;

 private:
  std::filesystem::path source_folder_, build_folder_;
  std::vector<Object> objects_;
  std::vector<Test> tests_;
  std::map<std::string, std::set<int>, std::less<>> compiled_from_;
  std::set<std::string, std::less<>> configures_, programs_;
  std::map<std::string, std::set<std::string>, std::less<>> runs_;

  void read_dependencies();
  void read_symbols();
  void read_targets();
  void read_tests();
};

}  // namespace ttt::inline v2::testing
