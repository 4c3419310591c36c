"""A server on loopback that answers as OpenAI's do: models, completions with echo, chats.

The model is a Hugging Face folder, read by plain transformers; greedy.
"""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server(ThreadingHTTPServer):
    """Serve the model of a folder as `name`.

    `asked` lists (path, body); `faults` are what the next completions are answered with: a status,
    or a body of status 200. `fault`, when the list is used up, is that of all others.
    """

    daemon_threads = True

    def __init__(self, folder=None, name="micro", key=None):
        super().__init__(("127.0.0.1", 0), Handler)
        self.name, self.key, self.asked, self.faults, self.fault = name, key, [], [], None
        self.lock = threading.Lock()
        if folder:
            from transformers import AutoModelForCausalLM, AutoTokenizer

            self.model = AutoModelForCausalLM.from_pretrained(folder).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(folder)
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    def handle_error(self, *_):
        """Whoever asked has gone, as after another request's failure."""

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def told(self, **changed):
        """The endpoint section of a job."""
        asked = {"url": self.url, "model": self.name, "parallel": 2, "retries": 2, "timeout": 30}
        return asked | changed

    def write(self, prompt, body):
        """The text that follows a prompt (token ids), up to the first stop string."""
        import torch

        with torch.no_grad():
            ids = self.model.generate(
                torch.tensor([prompt]),
                attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
                max_new_tokens=body.get("max_tokens", 16),
                do_sample=False,
                pad_token_id=self.tokenizer.eos_token_id,
            )[0, len(prompt) :]
        text = self.tokenizer.decode(ids, skip_special_tokens=False)
        ends = [text.find(stop) for stop in [*body.get("stop", []), self.tokenizer.eos_token]]
        return text[: min((end for end in ends if end >= 0), default=len(text))]

    def rate(self, prompt):
        """The logprobs of a prompt's tokens, and of the likeliest one behind it."""
        import torch

        with torch.no_grad():
            logits = self.model(torch.tensor([prompt])).logits[0].double()
        logprobs = torch.log_softmax(logits, -1)
        follows = [*prompt[1:], int(logprobs[-1].argmax())]
        values = [float(logprobs[place, token]) for place, token in enumerate(follows)]
        tops = [{str(int(row.argmax())): float(row.max())} for row in logprobs]
        return {"token_logprobs": [None, *values], "top_logprobs": [None, *tops]}

    def complete(self, body):
        prompts = body["prompt"]
        if isinstance(prompts, str):
            prompts = [self.tokenizer(prompts, add_special_tokens=False).input_ids]
        elif isinstance(prompts[0], int):
            prompts = [prompts]
        if body.get("echo"):
            return [{"text": "", "logprobs": self.rate(prompt)} for prompt in prompts]
        return [{"text": self.write(prompt, body)} for prompt in prompts]

    def chat(self, body):
        prompt = self.tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, tokenize=False
        )
        ids = self.tokenizer(prompt, add_special_tokens=False).input_ids
        return [{"message": {"role": "assistant", "content": self.write(ids, body)}}]


class Handler(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def do_GET(self):
        self.server.asked.append((self.path, None))
        if self.is_known() and self.path == "/v1/models":
            return self.answer(200, {"object": "list", "data": [{"id": self.server.name}]})
        return self.answer(404 if self.is_known() else 401, {"error": "no"})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append((self.path, body))
            fault = server.faults.pop(0) if server.faults else server.fault
            if isinstance(fault, int):
                return self.answer(fault, {"error": "no"})
            if fault is not None:
                return self.answer(200, fault)
            if body["model"] != server.name:
                return self.answer(404, {"error": "no such model"})
            make = server.chat if self.path.endswith("/chat/completions") else server.complete
            choices = [{"index": place, **one} for place, one in enumerate(make(body))]
            return self.answer(200, {"choices": choices})

    def is_known(self):
        return self.server.key in (None, self.headers["Authorization"].removeprefix("Bearer "))

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass
