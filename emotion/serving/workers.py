"""Threads that find and classify faces, each with its own decoder, detector and network."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from emotion.live.analysis import Classifier, FaceAnalyser, Findings
from emotion.logger_config import get_logger
from emotion.serving.config import ServerConfig
from emotion.serving.decoders import DecoderStarter, FrameDecoder
from emotion.serving.refusals import Refusal

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class AnalysedFrame:
    """A worker's findings in a frame; times in seconds, `start_s` on time.perf_counter's clock."""

    width: int
    height: int
    findings: Findings
    start_s: float
    decode_s: float


class AnalysisWorkers:
    """Analyses pictures off the event loop, with fair turns for all clients.

    A client has one request for a turn at a time, and turns come in the order of the requests, so that each
    of n busy clients gets every n-th turn. Only the event loop uses this object; the threads work
    by themselves.

    Args:
        config: Model, limits, number of threads.

    Attributes:
        starter: Of the processes that decode; ended with the threads.
        turns: Held during a call of `frame` or `faces`: `async with workers.turns: ...`.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._threads = ThreadPoolExecutor(config.num_workers, thread_name_prefix="analysis")
        self._local = threading.local()
        self._analysers: list[FaceAnalyser] = []
        self._decoders: list[FrameDecoder] = []
        self.starter = DecoderStarter()
        # The right to one call of `frame` or `faces`. Waiting clients are served in order.
        self.turns = asyncio.Semaphore(config.num_workers)
        self.is_warm = False

    async def warm_up(self) -> None:
        """Makes every thread's decoder, detector and network, so that nobody's first frame waits for it."""
        if self._config.model is not None:
            self.starter.start()
            loop = asyncio.get_running_loop()
            all_here = threading.Barrier(self._config.num_workers)
            warmings = [
                loop.run_in_executor(self._threads, self._warm_thread, all_here)
                for _ in range(self._config.num_workers)
            ]
            await asyncio.gather(*warmings)
        self.is_warm = True

    def _warm_thread(self, all_here: threading.Barrier) -> None:
        try:
            self._analyser().find(np.zeros((64, 64, 3), np.uint8))
            self._decoder().start()
        except BaseException:
            all_here.abort()  # the other threads need not wait for this one
            raise
        with contextlib.suppress(threading.BrokenBarrierError):
            all_here.wait(timeout=30)  # holds this thread, so that the next request goes to another one

    async def frame(self, data: bytes) -> AnalysedFrame:
        """Decodes and analyses a frame.

        Raises:
            Refusal: It cannot be decoded, or the analysis failed (failed).
        """
        return await self._call(lambda: self._frame(data))

    async def faces(self, image_rgb: NDArray[np.uint8]) -> Findings:
        """The faces of an (H, W, 3) uint8 RGB picture.

        Raises:
            Refusal: The analysis failed (failed).
        """
        return await self._call(lambda: self._find(image_rgb))

    async def _call(self, work: Callable[[], _Result]) -> _Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work)
        except RuntimeError:  # the threads were stopped since the request came
            raise Refusal("stopping") from None

    def _frame(self, data: bytes) -> AnalysedFrame:
        start_s = time.perf_counter()
        image = self._decoder().decode(data)
        decode_s = time.perf_counter() - start_s
        return AnalysedFrame(image.shape[1], image.shape[0], self._find(image), start_s, decode_s)

    def _find(self, image_rgb: NDArray[np.uint8]) -> Findings:
        try:
            return self._analyser().find(image_rgb)
        except Exception as error:
            # After an error a network's memory may be half written; the next picture gets a new one.
            get_logger("server").error("a picture could not be analysed: %s", type(error).__name__)
            failed = self._local.__dict__.pop("analyser", None)
            if failed is not None:
                self._analysers.remove(failed)
                with contextlib.suppress(Exception):
                    failed.close()
            raise Refusal("failed") from None

    def _analyser(self) -> FaceAnalyser:
        analyser: FaceAnalyser | None = getattr(self._local, "analyser", None)
        if analyser is None:
            if self._config.model is None:
                raise Refusal("no_model")
            analyser = FaceAnalyser(Classifier(self._config.model), self._config.max_faces)
            self._local.analyser = analyser
            self._analysers.append(analyser)
        return analyser

    def _decoder(self) -> FrameDecoder:
        decoder: FrameDecoder | None = getattr(self._local, "decoder", None)
        if decoder is None:
            decoder = self._local.decoder = FrameDecoder(self.starter, self._config)
            self._decoders.append(decoder)
        return decoder

    def close(self) -> None:
        """Ends what is being decoded, waits for what is being analysed and ends the threads."""
        self.starter.close()
        self._threads.shutdown(wait=True, cancel_futures=True)
        while self._analysers:
            self._analysers.pop().close()
        while self._decoders:
            self._decoders.pop().close()
