"""Ask a server with LangChain's classes for OpenAI: `python langchain_chat.py URL OUT.json`.

Runs in the clients' environment.
"""

import asyncio
import json
import sys
from pathlib import Path

from langchain_openai import ChatOpenAI, OpenAI


async def pieces_of(chat: ChatOpenAI, text: str) -> list[str]:
    return [piece.text async for piece in chat.astream(text)]


def main() -> None:
    url, out = sys.argv[1:]
    given = {
        "base_url": f"{url}/v1",
        "api_key": "none",
        "model": "tinytales",
        "temperature": 0,
        "max_tokens": 16,
    }
    chat, text = ChatOpenAI(**given, stream_usage=True), "Tell me a story."
    answer = chat.invoke(text)
    stream = list(chat.stream(text))
    found = {
        "invoke": answer.text,
        "usage": answer.usage_metadata,
        "finish_reason": answer.response_metadata["finish_reason"],
        "stream": [piece.text for piece in stream],
        "stream_usage": sum(
            piece.usage_metadata["output_tokens"] for piece in stream if piece.usage_metadata
        ),
        "astream": asyncio.run(pieces_of(chat, text)),
        "batch": [one.text for one in chat.batch([text, "Hello."])],
        "completion": OpenAI(**given).invoke("Once upon a time"),
    }
    Path(out).write_text(json.dumps(found))


if __name__ == "__main__":
    main()
