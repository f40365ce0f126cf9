// The HTTP server over one generator: a thread that steps, and one per connection that reads and writes.
#pragma once

#include <atomic>
#include <chrono>
#include <memory>
#include <string>

#include "api.h"
#include "ttt/convert/load.h"

namespace ttt_serve {

struct ServerOptions {
  std::string host = "127.0.0.1";
  int port = 8000;  // 0: any that is free
  std::string model_name{};
  std::string api_key{};  // "": none is asked for
  ttt::GeneratorOptions generator{};
  int max_connections = 256;
  int max_waiting = 512;                        // sequences; beyond: 429
  std::size_t max_body = std::size_t{4} << 20;  // bytes of a request; beyond: 413
  ApiLimits limits{};
  int read_timeout = 20;   // seconds for a request to arrive
  int write_timeout = 20;  // seconds that a client may leave its answer unread; then it is dropped
  int drain_timeout = 30;  // seconds that answers under way have to end after shutdown()
};

class Server {
 public:
  // `loaded` outlives the server. Error: the address can not be bound (says which), or no tokenizer.
  Server(const ttt::LoadedModel& loaded, ServerOptions);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  int port() const;
  int max_context() const;
  // Serves until shutdown().
  void run();
  // No new requests; those under way may end within the drain timeout. From any thread.
  void shutdown();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ttt_serve
