"""OpenAI's own Python client against the server."""

import base64
import io
import struct
import time
import unittest

try:
    import openai
except ImportError:
    raise unittest.SkipTest("no `openai` to be had") from None

from served import MODEL, PROMPT, Served


def size_of(png):
    """Width and height, as the head of a PNG says."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n"), png[:16]
    return struct.unpack(">II", png[16:24])


def data_url(png):
    return "data:image/png;base64," + base64.b64encode(png).decode()


class OpenAiClient(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = Served()
        cls.client = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="any", max_retries=0, timeout=60)
        cls.scene = (MODEL / "scene.png").read_bytes()

    @classmethod
    def tearDownClass(cls):
        cls.server.stop()

    def draw(self, **more):
        return self.client.images.generate(model="model", prompt=PROMPT, **more)

    def test_images(self):
        answer = self.draw(size="256x256", n=2, extra_body={"seed": 7})
        images = [base64.b64decode(image.b64_json) for image in answer.data]
        self.assertEqual([size_of(image) for image in images], [(256, 256)] * 2)
        self.assertEqual([image.seed for image in answer.data], [7, 8])
        self.assertEqual(answer.usage.total_tokens, answer.usage.input_tokens + answer.usage.output_tokens)
        again = self.draw(size="256x256", extra_body={"seed": 8}).data[0].b64_json
        self.assertEqual(base64.b64decode(again), images[1])

    def test_streamed_images(self):
        events = list(self.draw(stream=True, partial_images=2, extra_body={"seed": 7}))
        self.assertEqual([event.type for event in events],
                         ["image_generation.partial_image"] * 2 + ["image_generation.completed"])
        self.assertEqual([event.partial_image_index for event in events[:-1]], [0, 1])
        self.assertEqual({size_of(base64.b64decode(event.b64_json)) for event in events}, {(256, 256)})
        whole = self.draw(extra_body={"seed": 7}).data[0].b64_json
        self.assertEqual(events[-1].b64_json, whole)

    def test_edits(self):
        ask = {"model": "model", "prompt": "make the red circle blue", "extra_body": {"seed": 3}}
        whole = self.client.images.edit(image=("scene.png", self.scene, "image/png"), **ask).data[0].b64_json
        events = list(self.client.images.edit(image=io.BytesIO(self.scene), stream=True, **ask))
        self.assertEqual(events[-1].type, "image_edit.completed")
        self.assertEqual(events[-1].b64_json, whole)
        size_of(base64.b64decode(whole))

    def test_tasks(self):
        answer = self.client.images.edit(model="model", image=self.scene, prompt="",
                                         extra_body={"task": "depth_estimation"})
        size_of(base64.b64decode(answer.data[0].b64_json))

    def test_chat(self):
        content = [{"type": "image_url", "image_url": {"url": data_url(self.scene)}}]
        ask = {"model": "model", "messages": [{"role": "user", "content": content}],
               "extra_body": {"task": "captioning"}, "seed": 1}
        answer = self.client.chat.completions.create(**ask)
        text = answer.choices[0].message.content
        self.assertIn("background", text)
        self.assertEqual(answer.choices[0].finish_reason, "stop")
        stream = self.client.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask)
        chunks = list(stream)
        pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        self.assertEqual("".join(pieces), text)
        self.assertEqual(chunks[-1].usage.total_tokens, answer.usage.total_tokens)

    def test_a_chat_goes_on(self):
        prompt = f"Generate an image of 256x256 according to the following prompt:\n{PROMPT}"
        messages = [{"role": "user", "content": prompt}]
        first = self.client.chat.completions.create(model="model", messages=messages, seed=1).choices[0].message
        self.assertTrue(first.images[0]["image_url"]["url"].startswith("data:image/png;base64,"))
        messages += [first.model_dump(exclude_none=True), {"role": "user", "content": "make the red circle blue"}]
        second = self.client.chat.completions.create(model="model", messages=messages, seed=1).choices[0].message
        self.assertEqual(second.role, "assistant")

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], ["model"])
        self.assertIn("text_to_image", self.client.models.retrieve("model").lumina["tasks"])

    def test_errors(self):
        with self.assertRaises(openai.BadRequestError) as refused:
            self.draw(size="1000x1000")
        self.assertEqual(refused.exception.param, "size")
        with self.assertRaises(openai.BadRequestError) as refused:
            self.client.images.generate(model="model", prompt="")
        self.assertEqual((refused.exception.param, refused.exception.type), ("prompt", "invalid_request_error"))
        with self.assertRaises(openai.NotFoundError):
            self.client.images.generate(model="gpt-image-1", prompt=PROMPT)

    def test_a_stream_that_is_closed_is_cancelled(self):
        before = self.server.metric("requests_cancelled_total")
        stream = self.draw(stream=True, n=10, extra_body={"row_events": True})
        next(iter(stream))
        stream.close()
        until = time.monotonic() + 60
        while self.server.metric("requests_cancelled_total") == before and time.monotonic() < until:
            time.sleep(0.05)
        self.assertGreater(self.server.metric("requests_cancelled_total"), before)

    def test_keys(self):
        server = Served("--api-key", "secret")
        try:
            ask = lambda key: openai.OpenAI(base_url=server.url + "/v1", api_key=key, max_retries=0).models.list()
            with self.assertRaises(openai.AuthenticationError):
                ask("wrong")
            self.assertEqual(len(ask("secret").data), 1)
        finally:
            server.stop()


if __name__ == "__main__":
    unittest.main()
