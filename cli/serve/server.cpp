#include "server.h"

#include <httplib.h>

#include <algorithm>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

#include "answer.h"
#include "chat_page.h"
#include "metrics.h"
#include "ttt/base/error.h"

namespace ttt_serve {

namespace {

constexpr const char* json_type = "application/json";
constexpr const char* page_policy =
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src "
    "data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

// Takes as long for every wrong key.
bool same_key(const std::string& given, const std::string& key) {
  unsigned difference = given.size() == key.size() ? 0 : 1;
  for (std::size_t i = 0; i < given.size(); ++i)
    difference |= static_cast<unsigned char>(given[i]) ^ static_cast<unsigned char>(key[i % key.size()]);
  return difference == 0;
}

bool is_loopback(const std::string& host) {
  return host == "localhost" || host == "::1" || host == "[::1]" || host.starts_with("127.");
}

// "localhost:8000" -> "localhost"
std::string without_port(const std::string& host) {
  const std::size_t colon = host.rfind(':');
  return colon == std::string::npos || host.back() == ']' ? host : host.substr(0, colon);
}

// A thread for each connection that lasts as long as it, up to `most`; further connections wait for one that
// ends. A pool of standing threads would hold what the allocator caches for each of them, however few are
// needed.
class ConnectionThreads : public httplib::TaskQueue {
  using Enqueued =
      decltype(std::declval<httplib::TaskQueue&>().enqueue({}));  // void or bool, by the library's version

 public:
  explicit ConnectionThreads(int most) : most_(most) {}

  Enqueued enqueue(std::function<void()> connection) override {
    const std::lock_guard lock(mutex_);
    waiting_.push_back(std::move(connection));
    if (running_ < most_) {
      try {
        std::thread([this] { run(); }).detach();
        ++running_;
      } catch (const std::system_error&) {
        if (running_ == 0) throw;  // else one of the others takes it
      }
    }
    return static_cast<Enqueued>(true);
  }

  // Waits for all connections to end.
  void shutdown() override {
    std::unique_lock lock(mutex_);
    ended_.wait(lock, [this] { return running_ == 0; });
  }

 private:
  void run() {
    std::unique_lock lock(mutex_);
    while (!waiting_.empty()) {
      const std::function<void()> connection = std::move(waiting_.front());
      waiting_.pop_front();
      lock.unlock();
      connection();
      lock.lock();
    }
    --running_;
    ended_.notify_all();  // under the lock: nothing of this object is used after it
  }

  const int most_;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::deque<std::function<void()>> waiting_;
  int running_ = 0;
};

}  // namespace

class Server::Impl {
 public:
  Impl(const ttt::LoadedModel& loaded, ServerOptions options)
      : options_(std::move(options)),
        tokenizer_(require_tokenizer(loaded)),
        generator_(*loaded.model, &tokenizer_, options_.generator),
        context_{.generator = generator_,
                 .tokenizer = tokenizer_,
                 .chat_template = loaded.chat_template ? &*loaded.chat_template : nullptr,
                 .control_ids = {},
                 .metrics = metrics_},
        defaults_(loaded.generation) {
    if (loaded.chat_template) context_.control_ids = ttt::control_ids(tokenizer_, *loaded.chat_template);
    configure();
    port_ = options_.port == 0 ? http_.bind_to_any_port(options_.host) : options_.port;
    const bool bound = options_.port == 0 ? port_ > 0 : http_.bind_to_port(options_.host, options_.port);
    if (!bound)
      throw ttt::Error("the address can not be bound", options_.host + ":" + std::to_string(options_.port),
                       "choose another --port, or stop what uses it");
  }

  void run() {
    std::jthread stepping([this](const std::stop_token& stop) { generator_.run(stop); });
    std::jthread draining([this](const std::stop_token& stop) { drain(stop); });
    http_.listen_after_bind();
  }

  void shutdown() {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    changed_.notify_all();
  }

  int port() const { return port_; }
  int max_context() const { return generator_.max_context(); }

 private:
  static const ttt::Tokenizer& require_tokenizer(const ttt::LoadedModel& loaded) {
    if (!loaded.device->computes())
      throw ttt::Error("the device computes no numbers", std::string(loaded.device->name()),
                       "use --backend cpu to serve");
    if (!loaded.tokenizer)
      throw ttt::Error("no tokenizer", "ttt serve", "put a tokenizer.json into the model's folder");
    return *loaded.tokenizer;
  }

  // After shutdown() answers have some time; then they are cut off. Only then is the listening socket closed,
  // since that cuts off answers, too.
  void drain(const std::stop_token& stop) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait(lock, stop, [this] { return closing_.load(); })) return;
    const auto none_left = [this] { return under_way_ == 0; };
    if (!changed_.wait_for(lock, stop, std::chrono::seconds(options_.drain_timeout), none_left)) {
      generator_.cancel_all();
      changed_.wait_for(lock, stop, std::chrono::seconds(options_.write_timeout), none_left);
    }
    http_.stop();
  }

  void count_answer(int change) {
    {
      const std::lock_guard lock(mutex_);
      under_way_ += change;
    }
    changed_.notify_all();
  }

  void configure() {
    http_.new_task_queue = [n = options_.max_connections] { return new ConnectionThreads(n); };
    http_.set_payload_max_length(options_.max_body);
    http_.set_read_timeout(options_.read_timeout);
    http_.set_write_timeout(options_.write_timeout);
    http_.set_keep_alive_max_count(1000);
    http_.set_tcp_nodelay(true);
    // Not SO_REUSEPORT, the library's default: two servers on one port would share its clients.
    http_.set_socket_options([](socket_t s) {
      const int yes = 1;
      ::setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    });
    http_.set_pre_routing_handler([this](const httplib::Request& request, httplib::Response& response) {
      return admit(request, response) ? httplib::Server::HandlerResponse::Unhandled
                                      : httplib::Server::HandlerResponse::Handled;
    });
    http_.set_error_handler([](const httplib::Request& request, httplib::Response& response) {
      if (!response.body.empty()) return;
      const int status = response.status;
      answer_error(response, ApiError(status, status == 404 ? "no such endpoint: " + request.method + " " +
                                                                  ttt::printable(request.path)
                                              : status == 413 ? "the request is too large"
                                                              : "the request is malformed"));
    });
    http_.set_exception_handler([](const httplib::Request&, httplib::Response& response,
                                   const std::exception_ptr& thrown) {
      try {
        std::rethrow_exception(thrown);
      } catch (const ApiError& error) {
        answer_error(response, error);
      } catch (
          const ttt::Error& error) {  // of the request: a prompt that is too long, a parameter out of range
        answer_error(response, ApiError(400, error.what()));
      } catch (const std::exception& error) { answer_error(response, ApiError(500, error.what())); }
    });
    http_.set_logger([this](const httplib::Request&, const httplib::Response& response) {
      metrics_.answered(response.status);
    });

    http_.Get("/", [](const httplib::Request&, httplib::Response& response) {
      response.set_header("Content-Security-Policy", page_policy);
      response.set_content(chat_page, "text/html; charset=utf-8");
    });
    http_.Get("/health", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(closing_ ? R"({"status":"closing"})" : R"({"status":"ok"})", json_type);
      if (closing_) response.status = 503;
    });
    http_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(metrics_.text(generator_.stats()), "text/plain; version=0.0.4; charset=utf-8");
    });
    http_.Get("/v1/models", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(Json{{"object", "list"}, {"data", Json::array({model_card()})}}.dump(), json_type);
    });
    http_.Get(R"(/v1/models/(.+))", [this](const httplib::Request& request, httplib::Response& response) {
      require_model(request.matches[1].str());
      response.set_content(model_card().dump(), json_type);
    });
    http_.Post("/v1/completions", [this](const httplib::Request& request, httplib::Response& response) {
      serve(parse_completion(body_of(request), defaults_, options_.limits), response);
    });
    http_.Post("/v1/chat/completions", [this](const httplib::Request& request, httplib::Response& response) {
      serve(parse_chat(body_of(request), defaults_, options_.limits), response);
    });
  }

  static void answer_error(httplib::Response& response, const ApiError& error) {
    response.status = error.status;
    if (error.status == 429 || error.status == 503) response.set_header("Retry-After", "1");
    if (error.status == 401) response.set_header("WWW-Authenticate", "Bearer");
    response.set_content(error_body(error).dump(-1, ' ', false, Json::error_handler_t::replace), json_type);
  }

  // What every request must have; false: it is answered.
  bool admit(const httplib::Request& request, httplib::Response& response) {
    // A page on the web must not reach a server that only this machine is meant to reach.
    if (is_loopback(options_.host) && !is_loopback(without_port(request.get_header_value("Host")))) {
      answer_error(response, ApiError(403, "the Host header is not that of this machine", "Host"));
      return false;
    }
    if (request.path.starts_with("/v1/") && !options_.api_key.empty()) {
      const std::string given = request.get_header_value("Authorization");
      if (!given.starts_with("Bearer ") || !same_key(given.substr(7), options_.api_key)) {
        answer_error(response, ApiError(401, "a wrong API key, or none: send Authorization: Bearer KEY", "",
                                        "invalid_api_key"));
        return false;
      }
    }
    if (closing_ && request.method == "POST") {
      answer_error(response, ApiError(503, "the server is shutting down"));
      return false;
    }
    return true;
  }

  // Only JSON: browsers ask first before they send that across sites.
  static Json body_of(const httplib::Request& request) {
    if (!request.get_header_value("Content-Type").starts_with(json_type))
      throw ApiError(415, "the Content-Type must be application/json", "Content-Type");
    return parse_body(request.body);
  }

  void require_model(const std::string& name) const {
    if (!name.empty() && name != options_.model_name)
      throw ApiError(404,
                     "no model '" + ttt::printable(name) + "', this server has '" + options_.model_name + "'",
                     "model", "model_not_found");
  }

  Json model_card() const {
    return {{"id", options_.model_name},
            {"object", "model"},
            {"created", started_},
            {"owned_by", "ttt"},
            {"max_model_len", generator_.max_context()}};
  }

  void serve(const ApiRequest& request, httplib::Response& response) {
    require_model(request.model);
    const ttt::GeneratorStats now = generator_.stats();
    const std::size_t sequences =
        std::max<std::size_t>(1, request.prompts.size()) * static_cast<std::size_t>(request.n);
    if (now.waiting + sequences > static_cast<std::size_t>(options_.max_waiting))
      throw ApiError(429, std::to_string(now.waiting) + " sequences wait already, try again later", "",
                     "queue_full");
    const AnswerHead head{.id = (request.chat ? "chatcmpl-" : "cmpl-") + tag_ + std::to_string(++answers_),
                          .model = options_.model_name,
                          .created = now_seconds(),
                          .chat = request.chat};
    const auto answer = std::make_shared<Answer>(context_, request, head);  // refuses before anything is sent
    response.set_chunked_content_provider(
        request.stream ? "text/event-stream" : json_type,
        [answer](std::size_t, httplib::DataSink& sink) {
          std::string text;
          while (text.empty()) {
            switch (answer->next(text, std::chrono::milliseconds(100))) {
              case Answer::More::later:
                if (!sink.is_writable()) return false;  // the client has gone
                continue;
              case Answer::More::broken:
                return false;  // an answer that can not be finished must not look whole
              case Answer::More::done:
                sink.done();
                return true;
              case Answer::More::text:
                break;
            }
          }
          return sink.write(text.data(), text.size());
        },
        [this, answer](bool) {
          answer->cancel();
          count_answer(-1);
        });
    count_answer(+1);
    if (request.stream) response.set_header("Cache-Control", "no-cache");
  }

  static std::int64_t now_seconds() {
    return std::chrono::duration_cast<std::chrono::seconds>(
               std::chrono::system_clock::now().time_since_epoch())
        .count();
  }

  ServerOptions options_;
  const ttt::Tokenizer& tokenizer_;
  Metrics metrics_;
  ttt::Generator generator_;
  AnswerContext context_;
  ttt::GenerationDefaults defaults_;
  httplib::Server http_;
  int port_ = 0;
  const std::int64_t started_ = now_seconds();
  const std::string tag_ = std::to_string(started_) + "-";
  std::atomic<std::uint64_t> answers_ = 0;
  std::mutex mutex_;
  std::condition_variable_any changed_;
  std::atomic<bool> closing_ = false;
  int under_way_ = 0;  // answers that are being sent
};

Server::Server(const ttt::LoadedModel& loaded, ServerOptions options)
    : impl_(std::make_unique<Impl>(loaded, std::move(options))) {}
Server::~Server() = default;
int Server::port() const { return impl_->port(); }
int Server::max_context() const { return impl_->max_context(); }
void Server::run() { impl_->run(); }
void Server::shutdown() { impl_->shutdown(); }

}  // namespace ttt_serve
